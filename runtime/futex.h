// The machine as the lock-free parts see it: atomics, a place to sleep, a clock. They take it as a
// template parameter, so that tests can put a simulated machine in its place.
#ifndef LOCKSTEP_RUNTIME_FUTEX_H_
#define LOCKSTEP_RUNTIME_FUTEX_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace lockstep::internal {

/// CLOCK_MONOTONIC: changes of the wall clock do not move it.
using Clock = std::chrono::steady_clock;

/// The real machine.
struct NativePlatform {
  template <typename T>
  using Atomic = std::atomic<T>;

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
  static void Park(const std::atomic<std::uint64_t>& word, std::uint32_t expected,
                   Clock::time_point deadline);
  /// Wakes every thread that sleeps on `word`, which may be gone by then.
  static void UnparkAll(const std::atomic<std::uint64_t>& word);
};

/// How a thread waits before it sleeps.
struct SpinPolicy {
  /// Polls that do not look at the clock, with a pause in between: about a microsecond.
  int close_polls = 0;
  /// Then polls for this long, with a pause in between, or giving the core away each time.
  std::chrono::nanoseconds budget{0};
  bool yields = false;

  /// What pays for `num_threads` that wait for each other on the cores that this process may use:
  /// spinning as long as each has a core of its own, giving the core away where they have not.
  static SpinPolicy For(int num_threads);
};

/// The cores this process may use.
int NumUsableCores();

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_FUTEX_H_
