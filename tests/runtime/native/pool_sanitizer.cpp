// Threads that share parts: each part is done once a round, and what was written is seen by all.
// Under ThreadSanitizer, which tells writes that no release and acquire put in order.
#include <cstdio>
#include <vector>

#include "step_pool.h"

int main() {
  for (const int threads : {1, 2, 3, 8}) {
    edgecap::StepPool pool(threads);
    std::vector<int> done(40, 0);
    std::vector<int> expected(40, 0);
    for (int turn = 0; turn < 200; ++turn) {
      const edgecap::StepPool::Awake awake(pool);
      for (int round = 0; round < 50; ++round) {
        const int count = 1 + (turn * 7 + round * 13) % 40;
        // Whoever does a part now reads what another thread may have written in a round before.
        pool.Run(count, [&](int part) { done[part] += 1; });
        for (int part = 0; part < count; ++part) expected[part] += 1;
        if (done != expected) {
          std::printf("%d threads: a part was not done once\n", threads);
          return 1;
        }
      }
    }
  }
  std::puts("sound");
}
