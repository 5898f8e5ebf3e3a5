#include "step_pool.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>

namespace edgecap {
namespace {

constexpr int kPartBits = 20;
constexpr uint64_t kPartMask = (uint64_t{1} << kPartBits) - 1;
constexpr int kSpins = 4000;  // some tens of microseconds, longer than a beam search step

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Spins at first, then lets others run.
void WaitALittle(int* spins) {
  if (++*spins < kSpins) {
    Pause();
  } else {
    sched_yield();
  }
}

bool HasParts(uint64_t ticket) {
  return (ticket & kPartMask) < ((ticket >> kPartBits) & kPartMask);
}

}  // namespace

StepPool::StepPool(int threads)
    : threads_(std::max(1, threads)), shares_(threads_), process_(getpid()) {
  for (int i = 1; i < threads_; ++i) helpers_.emplace_back([this, i] { Serve(i); });
}

StepPool::~StepPool() {
  if (process_ != getpid()) {  // after fork() there is nothing to join
    for (std::thread& helper : helpers_) helper.detach();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    awake_.store(false, std::memory_order_relaxed);
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

// A helper that is woken on the caller's own processor finds it taken, and the system may leave it
// there for longer than a caption takes. So helpers keep off the processor that the caller is on.
void StepPool::KeepOff() {
#if defined(__linux__)
  const int here = sched_getcpu();
  if (here < 0 || here == kept_off_ || process_ != getpid()) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  if (!CPU_ISSET(here, &allowed) || CPU_COUNT(&allowed) < threads_) return;
  CPU_CLR(here, &allowed);
  for (std::thread& helper : helpers_) {
    pthread_setaffinity_np(helper.native_handle(), sizeof(allowed), &allowed);
  }
  kept_off_ = here;
#endif
}

void StepPool::Begin() {
  if (threads_ == 1) return;
  KeepOff();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    awake_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_all();
}

void StepPool::End() {
  if (threads_ == 1) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  awake_.store(false, std::memory_order_relaxed);
}

void StepPool::RunShared(int count, Call call, void* context) {
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  left_.store(count, std::memory_order_relaxed);
  ++round_;
  for (int64_t i = threads_ - 1; i >= 0; --i) {  // the caller, which needs no telling, last
    const uint64_t begin = (i * count + threads_ - 1) / threads_;
    const uint64_t end = ((i + 1) * count + threads_ - 1) / threads_;
    shares_[i].ticket.store(round_ << (2 * kPartBits) | end << kPartBits | begin,
                            std::memory_order_release);
  }
  Work(0);
  int spins = 0;
  while (left_.load(std::memory_order_acquire) != 0) WaitALittle(&spins);
}

// Does parts of this round, a thread's own and then those that others have not begun.
void StepPool::Work(int thread) {
  int done = 0;
  for (int i = 0; i < threads_; ++i) {
    Share& share = shares_[(thread + i) % threads_];
    while (TakeOne(share)) ++done;
  }
  if (done != 0) left_.fetch_sub(done, std::memory_order_release);
}

bool StepPool::TakeOne(Share& share) {
  uint64_t ticket = share.ticket.load(std::memory_order_acquire);
  while (HasParts(ticket)) {
    // While a part of this round is left, these two belong to it.
    const Call call = call_.load(std::memory_order_relaxed);
    void* context = context_.load(std::memory_order_relaxed);
    if (share.ticket.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                           std::memory_order_acquire)) {
      call(context, static_cast<int>(ticket & kPartMask));
      return true;
    }
  }
  return false;
}

void StepPool::Serve(int thread) {
  const std::atomic<uint64_t>& own = shares_[thread].ticket;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || awake_.load(std::memory_order_relaxed); });
      if (closing_) return;
    }
    int spins = 0;
    while (awake_.load(std::memory_order_relaxed)) {
      if (HasParts(own.load(std::memory_order_acquire))) {
        Work(thread);
        spins = 0;
      } else {
        WaitALittle(&spins);
      }
    }
  }
}

}  // namespace edgecap
