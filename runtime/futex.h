// The machine as the lock-free parts see it: atomics, a place to sleep, a clock. They take it as a
// template parameter, so that tests can put a simulated machine in its place.
#ifndef LOCKSTEP_RUNTIME_FUTEX_H_
#define LOCKSTEP_RUNTIME_FUTEX_H_

#include <chrono>
#include <cstdint>

#include "lockstep/runtime/annotated_atomic.h"

namespace lockstep::internal {

/// CLOCK_MONOTONIC: changes of the wall clock do not move it.
using Clock = std::chrono::steady_clock;

/// The real machine.
struct NativePlatform {
  template <typename T>
  using Atomic = AnnotatedAtomic<T>;

  static Clock::time_point Now() { return Clock::now(); }

  /// Between two polls: tells the core that this is a spin.
  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  /// Lets another thread have this core.
  static void Yield();

  /// Sleeps while the low half of `word` is `expected`, until `deadline` at the latest. May return
  /// early for no reason.
  static void Park(const Atomic<std::uint64_t>& word, std::uint32_t expected,
                   Clock::time_point deadline);
  /// Wakes every thread that sleeps on `word`, which may be gone by then.
  static void UnparkAll(const Atomic<std::uint64_t>& word);
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_FUTEX_H_
