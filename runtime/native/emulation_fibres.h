// The threads of a CUDA block as fibres of one host thread: every thread has a stack of its own and
// runs until it must wait (__syncthreads, a warp exchange, its end); then the next one goes on.
//
// Blocks run one after another, lanes in order, so every run is the same. A wait that nobody can
// end (a barrier not all threads reach, a warp exchange with a lane that is elsewhere) aborts with
// a message, where a GPU would hang. Sanitizers know of the stacks.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#if !defined(__x86_64__) || defined(EDGECAP_UCONTEXT)
#define EDGECAP_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace edgecap::emulation {

constexpr size_t kStackBytes = 256 * 1024;  // pages that are not touched take no memory
constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxShared = 101376;  // bytes a block: what every GPU from 8.0 on can give

[[noreturn]] inline void Fail(const char* what) {
  std::fprintf(stderr, "CUDA emulation: %s\n", what);
  std::abort();
}

// Where a stack stands while it does not run.
struct Context {
#ifdef EDGECAP_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  void* shadow = nullptr;  // AddressSanitizer's
  const void* bottom = nullptr;
  size_t bytes = 0;
};

#ifndef EDGECAP_UCONTEXT
// Saves the registers that a call must keep and goes on with another stack.
__attribute__((naked, noinline)) inline void SwitchStacks(void** /*from*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

inline void Prepare(Context& context, char* stack, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kStackBytes);  // what the last fibre on it left behind
#endif
  context.shadow = nullptr;
  context.bottom = stack;
  context.bytes = kStackBytes;
#ifdef EDGECAP_UCONTEXT
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = kStackBytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
#else
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  std::memset(top - 8, 0, 8 * sizeof(void*));
  top[-2] = reinterpret_cast<void*>(entry);  // where the first switch returns to
  context.stack_pointer = top - 8;
#endif
}

// `ends` says that nobody comes back to `from`.
inline void Switch(Context& from, Context& to, bool ends = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.shadow, to.bottom, to.bytes);
#else
  (void)ends;
#endif
#ifdef EDGECAP_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  SwitchStacks(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
#endif
}

struct Fibre {
  Context context;
  dim3 thread;
  int warp = 0, lane = 0;
  // What it brings to a warp exchange, and what it takes from it.
  uint32_t mask = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
  uint32_t votes = 0;
};

struct Warp {
  uint32_t alive = 0, ready = 0, exchanging = 0, at_barrier = 0;  // one bit a lane
};

class Machine {
 public:
  dim3 grid, block, block_index;
  Fibre* current = nullptr;
  unsigned char* dynamic_shared = nullptr;
  bool reverse_blocks = false;  // also by EDGECAP_EMULATED_REVERSE; no result may depend on it
  std::mutex mutex;             // one launch at a time

  void Run(dim3 grid_, dim3 block_, size_t shared, void (*body)(void*), void* argument) {
    grid = grid_;
    block = block_;
    body_ = body;
    argument_ = argument;
    const unsigned threads = block.x * block.y * block.z;
    while (stacks_.size() < threads) stacks_.push_back(NewStack());
    fibres_.resize(threads);
    warps_.assign(threads / kWarp, Warp());
    for (unsigned i = 0; i < threads; ++i) {
      fibres_[i].thread = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
      fibres_[i].warp = static_cast<int>(i / kWarp);
      fibres_[i].lane = static_cast<int>(i % kWarp);
    }
    const bool reverse = reverse_blocks || std::getenv("EDGECAP_EMULATED_REVERSE") != nullptr;
    const size_t blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
    for (size_t n = 0; n < blocks; ++n) {
      const size_t b = reverse ? blocks - 1 - n : n;
      block_index =
          dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
               static_cast<unsigned>(b / grid.x / grid.y));
      dynamic_shared =
          static_cast<unsigned char*>(std::aligned_alloc(128, (shared + 127) & ~127ul));
      if (shared > 0) std::memset(dynamic_shared, 0xff, shared);  // NaN, until somebody writes
      RunBlock(threads);
      std::free(dynamic_shared);
    }
  }

  // __syncthreads; gives how many threads of the block brought a true predicate.
  int Barrier(bool predicate) {
    Warp& warp = warps_[current->warp];
    warp.ready &= ~Bit();
    warp.at_barrier |= Bit();
    ++arrived_;
    agreed_ += predicate;
    if (arrived_ == alive_) {
      ReleaseBarrier();
    } else {
      Yield();
    }
    return barrier_result_;
  }

  // Every lane of `mask` brings a value; each takes that of lane `source` and the ballot.
  Fibre& Exchange(uint32_t mask, uint64_t value, int source) {
    Fibre& me = *current;
    Warp& warp = warps_[me.warp];
    if (!(mask & Bit())) Fail("a lane calls a warp function without being in its mask");
    me.mask = mask;
    me.value = value;
    me.source = source;
    warp.exchanging |= Bit();
    Fibre* lanes = &fibres_[me.warp * kWarp];
    bool all = (warp.exchanging & mask) == mask;
    for (int lane = 0; all && lane < kWarp; ++lane) {
      all = !(mask >> lane & 1u) || lanes[lane].mask == mask;
    }
    if (!all) {
      warp.ready &= ~Bit();
      Yield();
      return me;
    }
    uint32_t votes = 0;
    for (int lane = 0; lane < kWarp; ++lane) {
      if (mask >> lane & 1u && lanes[lane].value != 0) votes |= 1u << lane;
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      if (!(mask >> lane & 1u)) continue;
      if (!(mask >> lanes[lane].source & 1u)) Fail("a shuffle reads a lane outside its mask");
      lanes[lane].result = lanes[lanes[lane].source].value;
      lanes[lane].votes = votes;
    }
    warp.exchanging &= ~mask;
    warp.ready |= mask;
    return me;
  }

 private:
  static char* NewStack() {
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) Fail("no memory for the stacks of a block");
    return static_cast<char*>(stack);
  }

  static void Entry();

  uint32_t Bit() const { return 1u << current->lane; }

  void RunBlock(unsigned threads) {
    alive_ = static_cast<int>(threads);
    arrived_ = agreed_ = 0;
    for (Warp& warp : warps_) warp = Warp{~0u, ~0u, 0, 0};
    for (unsigned i = 0; i < threads; ++i) Prepare(fibres_[i].context, stacks_[i], &Entry);
    current = &fibres_[0];
    host_.bottom = nullptr;  // launches come from any host thread
    Switch(host_, current->context);
    current = nullptr;
  }

  void ReleaseBarrier() {
    barrier_result_ = agreed_;
    arrived_ = agreed_ = 0;
    for (Warp& warp : warps_) {
      warp.ready |= warp.at_barrier;
      warp.at_barrier = 0;
    }
  }

  [[noreturn]] void End() {
    Warp& warp = warps_[current->warp];
    warp.alive &= ~Bit();
    warp.ready &= ~Bit();
    --alive_;
    if (alive_ > 0 && arrived_ == alive_) ReleaseBarrier();
    Fibre* last = current;
    if (alive_ == 0) {
      Switch(last->context, host_, true);
    } else {
      current = Next();
      Switch(last->context, current->context, true);
    }
    std::abort();
  }

  void Yield() {
    Fibre* last = current;
    current = Next();
    Switch(last->context, current->context);
  }

  Fibre* Next() {
    const int first = current->warp;
    const int count = static_cast<int>(warps_.size());
    const uint32_t later = warps_[first].ready & ~((2u << current->lane) - 1u);
    if (later) return &fibres_[first * kWarp + __builtin_ctz(later)];
    for (int i = 0; i < count; ++i) {
      const int warp = (first + i) % count;
      const uint32_t ready = warps_[warp].ready;
      if (ready) return &fibres_[warp * kWarp + __builtin_ctz(ready)];
    }
    Fail("all threads wait: a barrier or a warp function that not all of them reach");
  }

  std::vector<char*> stacks_;
  std::vector<Fibre> fibres_;
  std::vector<Warp> warps_;
  Context host_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  int alive_ = 0, arrived_ = 0, agreed_ = 0, barrier_result_ = 0;
};

inline Machine machine;

inline void Machine::Entry() {
#if defined(__SANITIZE_ADDRESS__)
  // The first fibre of a block comes from the host's stack, and learns where that lies.
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (machine.host_.bottom == nullptr) {
    machine.host_.bottom = bottom;
    machine.host_.bytes = bytes;
  }
#endif
  machine.body_(machine.argument_);
  machine.End();
}

}  // namespace edgecap::emulation
