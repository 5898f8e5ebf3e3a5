// A few threads that work on one decode and sleep afterwards.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace edgecap {

// Each thread has its own run of the numbered parts: the same in every layer, so that what it wrote
// is still in its cache, and no counter travels between cores for every part. Who is done takes
// from the others, so a thread that the system has put aside holds nobody up. Between Begin and End
// they spin, outside they sleep, so that an encoder finds the cores free.
class StepPool {
 public:
  // threads : the caller is one of them
  explicit StepPool(int threads);
  ~StepPool();
  StepPool(const StepPool&) = delete;
  StepPool& operator=(const StepPool&) = delete;

  int threads() const { return threads_; }
  void Begin();
  void End();
  // Awake from its making to its end.
  class Awake {
   public:
    explicit Awake(StepPool& pool) : pool_(pool) { pool_.Begin(); }
    ~Awake() { pool_.End(); }
    Awake(const Awake&) = delete;
    Awake& operator=(const Awake&) = delete;

   private:
    StepPool& pool_;
  };

  // Calls work(part) for parts 0 to count - 1, each once, and returns when all are done.
  template <typename Work>
  void Run(int count, Work&& work) {
    if (threads_ == 1 || count < 2) {
      for (int part = 0; part < count; ++part) work(part);
      return;
    }
    RunShared(
        count, [](void* context, int part) { (*static_cast<std::decay_t<Work>*>(context))(part); },
        &work);
  }

 private:
  using Call = void (*)(void*, int);

  // Round (24 bits), end (20), next part (20): one word, so that a part is never taken of a round
  // that is over. A line of the cache for each, so that threads do not slow each other.
  struct alignas(64) Share {
    std::atomic<uint64_t> ticket{0};
  };

  void RunShared(int count, Call call, void* context);
  void Work(int thread);
  bool TakeOne(Share& share);
  void KeepOff();
  void Serve(int thread);

  const int threads_;
  std::vector<Share> shares_;  // of the caller, then of each helper
  std::vector<std::thread> helpers_;
  int64_t process_;    // that the helpers run in; a child process has none
  int kept_off_ = -1;  // the processor that helpers leave alone
  uint64_t round_ = 0;
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> context_{nullptr};
  alignas(64) std::atomic<int> left_{0};
  std::atomic<bool> awake_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closing_ = false;
};

}  // namespace edgecap
