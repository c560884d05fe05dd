// How a caller hands a piece of work to standing threads, and learns that all of them are done with
// it.
#ifndef LOCKSTEP_RUNTIME_HANDOVER_H_
#define LOCKSTEP_RUNTIME_HANDOVER_H_

#include <atomic>
#include <chrono>
#include <cstdint>

#include "lockstep/runtime/futex.h"
#include "lockstep/runtime/patience.h"

namespace lockstep::internal {

/// Two words. `work_` counts the pieces of work handed over, `pending_` the threads that are not
/// done with the last one; the lowest bit of each says that somebody sleeps on it, so that nobody
/// pays for a wake that nobody needs.
///
/// Start() releases what the caller wrote before to every thread that returns from AwaitWork(), and
/// Finish() releases what a thread wrote to the caller that returns from AwaitDone().
template <typename Platform>
class Handover {
 public:
  Handover() = default;
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  /// The number of the last piece of work, for a thread that joins between two pieces.
  std::uint32_t current() const { return Count(work_.load(std::memory_order_relaxed)); }

  /// Caller, when the last piece is done: hands the next one to `num_threads` threads.
  void Start(int num_threads) {
    pending_.store(static_cast<std::uint64_t>(num_threads) << 1, std::memory_order_relaxed);
    std::uint64_t seen = work_.load(std::memory_order_relaxed);
    // Release pairs with the acquire in Await, on the side of AwaitWork.
    while (!work_.compare_exchange_weak(seen, std::uint64_t{Next(Count(seen))} << 1,
                                        std::memory_order_release, std::memory_order_relaxed)) {
    }
    if ((seen & kParked) != 0) Platform::UnparkAll(work_);
  }

  /// Thread: returns the number of the piece after `last`, once it is there.
  std::uint32_t AwaitWork(std::uint32_t last, Patience<Platform>& patience) {
    return Await(work_, patience, [last](std::uint32_t count) { return count != last; });
  }

  /// Thread: done with the piece. The caller may be gone when this returns, and this object with
  /// it.
  void Finish() {
    // Release pairs with the acquire in Await, on the side of AwaitDone; acquire makes one thread's
    // writes visible through the chain of all of them.
    const std::uint64_t before = pending_.fetch_sub(2, std::memory_order_acq_rel);
    if (Count(before) == 1 && (before & kParked) != 0) Platform::UnparkAll(pending_);
  }

  /// Caller: returns when every thread is done with the last piece.
  void AwaitDone(Patience<Platform>& patience) {
    Await(pending_, patience, [](std::uint32_t count) { return count == 0; });
  }

 private:
  using Word = typename Platform::template Atomic<std::uint64_t>;

  static constexpr std::uint64_t kParked = 1;
  // Sleepers look again this often: a wake is never relied on for ever.
  static constexpr std::chrono::seconds kNap{10};

  static std::uint32_t Count(std::uint64_t word) { return static_cast<std::uint32_t>(word) >> 1; }
  static std::uint32_t Next(std::uint32_t count) { return (count + 1) & 0x7fffffffu; }

  template <typename Ready>
  static std::uint32_t Await(Word& word, Patience<Platform>& patience, Ready ready) {
    std::uint64_t seen = 0;
    const auto look = [&] {
      seen = word.load(std::memory_order_acquire);
      return ready(Count(seen));
    };
    if (look()) return Count(seen);
    const Clock::time_point start = Platform::Now();
    patience.Await(start, Clock::time_point::max(), look);
    while (!ready(Count(seen))) {
      const std::uint64_t parked = seen | kParked;
      if (seen == parked || word.compare_exchange_weak(seen, parked, std::memory_order_acquire,
                                                       std::memory_order_acquire)) {
        Platform::Park(word, static_cast<std::uint32_t>(parked), Platform::Now() + kNap);
        seen = word.load(std::memory_order_acquire);
      }
    }
    return Count(seen);
  }

  alignas(128) Word work_{0};
  alignas(128) Word pending_{0};
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_HANDOVER_H_
