// How long a thread that waits for another stays awake before it sleeps.
#ifndef LOCKSTEP_RUNTIME_PATIENCE_H_
#define LOCKSTEP_RUNTIME_PATIENCE_H_

#include <algorithm>
#include <chrono>

#include "lockstep/runtime/futex.h"

namespace lockstep::internal {

struct PatienceLimits {
  /// Polls for this long, about what a sleep and a wake cost; 0: never.
  std::chrono::nanoseconds budget = std::chrono::microseconds(50);
  /// Giving the core away takes less than this where nobody wants it, and then so many close polls
  /// come before the next time. On Linux 6.18 it takes 0.49 us, and 2.6 us where another thread
  /// that waits takes its turn.
  std::chrono::nanoseconds no_turn = std::chrono::nanoseconds(800);
  int close_polls = 16;
  /// A core that comes back later than this was wanted by somebody who computes. Far above what a
  /// turn of other waiting threads takes, far below the scheduler's slice of 1 to 4 ms.
  std::chrono::nanoseconds longest_turn = std::chrono::microseconds(100);
  /// Such a turn is not risked again before this many times its length have passed.
  int rest = 32;
};

/// One thread's way of waiting. Between two polls it gives its core away, so it holds up nobody,
/// whoever that is: a rank of its own group, another group, another process. Among threads that
/// wait for each other that is the quickest way round; while nobody takes the core, close polls in
/// between see sooner what they wait for. Beside a thread that computes it is the slowest, since
/// the core comes back after a whole slice; a thread that slept is put before that one when it is
/// woken. So after one such turn the thread sleeps at once for a while.
///
/// Not synchronised: it belongs to the thread that waits. What meetings take with it, alone and
/// beside others, is in tools/lockstep/README.md.
template <typename Platform>
class Patience {
 public:
  explicit Patience(PatienceLimits limits = {}) : limits_(limits) {}

  /// Polls `done()` from `now` on. True: it was. False: it is time to sleep, or `deadline` is over.
  template <typename Done>
  bool Await(Clock::time_point now, Clock::time_point deadline, Done&& done) {
    if (now < rested_) return false;
    const Clock::time_point end = std::min(now + limits_.budget, deadline);
    while (now < end) {
      if (done()) return true;
      for (int poll = 0; alone_ && poll < limits_.close_polls; ++poll) {
        Platform::Pause();
        if (done()) return true;
      }
      const Clock::time_point given = Platform::Now();
      Platform::Yield();
      now = Platform::Now();
      const auto turn = now - given;
      alone_ = turn < limits_.no_turn;
      if (turn > limits_.longest_turn) {
        rested_ = now + limits_.rest * turn;
        return false;
      }
    }
    return false;
  }

 private:
  PatienceLimits limits_;
  // Nobody took the core when it was given away last.
  bool alone_ = true;
  Clock::time_point rested_{};
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_PATIENCE_H_
