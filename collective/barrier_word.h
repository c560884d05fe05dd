// The one word at which all ranks of a group meet.
#ifndef LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_
#define LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "lockstep/runtime/futex.h"
#include "lockstep/runtime/patience.h"

namespace lockstep::internal {

/// A barrier whose whole state is one 64-bit word, so that arriving, releasing, timing out and
/// aborting are each one compare-and-swap and cannot contradict each other: a round is completed
/// for all of its ranks or for none.
///
///   bits  0..30  what sleepers compare: parked (1), generation (19), poison (11)
///   bits 32..63  arrived (10), departed (10), epoch (12)
///
/// generation counts completed rounds; poison is 0, or 1 + the index of the culprit, whose
/// diagnosis was written before; departed counts the ranks that left their task and will not come;
/// epoch counts resets. A round that is complete stays complete: a waiter looks at the generation
/// before the poison.
///
/// Everything a rank wrote before Meet() is visible to every rank after a Meet() that completed,
/// and to `agree`.
///
/// Platform: NativePlatform (runtime/futex.h), or a simulated machine.
template <typename Platform>
class BarrierWord {
 public:
  static constexpr int kMaxRanks = 1000;

  enum class Verdict : std::uint8_t { kCompleted, kPoisoned, kStale };

  struct Outcome {
    Verdict verdict;
    /// Poisoned: the index given to the Poison that came first, or the rank whose wait ran out.
    int culprit = -1;
    /// This rank was counted: it did not find the word poisoned already.
    bool arrived = false;
    /// Completed: this rank came last.
    bool last = false;
    /// How long this rank waited.
    std::chrono::nanoseconds waited{0};
  };

  /// What a rank must explain before it poisons the word.
  enum class Reason : std::uint8_t { kTimeout, kDeparted };

  /// `first_generation` lets a test begin shortly before the counter wraps.
  explicit BarrierWord(int world_size, std::uint32_t first_generation = 0)
      : world_size_(static_cast<std::uint32_t>(world_size)),
        word_(Pack({.generation = first_generation & kGenerationMask})) {}
  BarrierWord(const BarrierWord&) = delete;
  BarrierWord& operator=(const BarrierWord&) = delete;

  struct Health {
    std::uint32_t epoch;
    /// -1 when the word is not poisoned.
    int culprit;
  };
  Health health() const {
    const State seen = Load();
    return {seen.epoch, static_cast<int>(seen.poison) - 1};
  }

  /// Arrives as `rank` and waits until all ranks have, for `timeout` at most, with `patience`
  /// before it sleeps. The rank that completes the round calls agree() before it does, and poisons
  /// with its own index on false. explain(reason) is called before this rank poisons; what it
  /// writes is visible to all who see the poison. Both may be called without effect, when another
  /// rank is faster.
  template <typename Agree, typename Explain>
  Outcome Meet(int rank, std::uint32_t epoch, std::chrono::nanoseconds timeout,
               Patience<Platform>& patience, Agree&& agree, Explain&& explain) {
    State seen = Load();
    for (;;) {
      if (seen.epoch != epoch) return {.verdict = Verdict::kStale};
      if (seen.poison != 0) return Poisoned(seen);
      const bool last = seen.arrived + 1 == world_size_;
      bool may_arrive = seen.departed == 0;
      if (!may_arrive) {
        explain(Reason::kDeparted);
      } else if (last) {
        may_arrive = agree();
      }
      if (!may_arrive) {
        if (TryPoison(seen, rank)) return {.verdict = Verdict::kPoisoned, .culprit = rank};
        continue;
      }
      State next = seen;
      if (last) {
        next = Completed(seen);
      } else {
        next.arrived = seen.arrived + 1;
      }
      // Acquire-release pairs with itself: the last rank has seen what all wrote, and passes it on.
      if (!Exchange(seen, next)) continue;
      if (!last) return Wait(rank, next, timeout, patience, explain);
      if (seen.parked) Platform::UnparkAll(word_);
      return {.verdict = Verdict::kCompleted, .arrived = true, .last = true};
    }
  }

  /// Poisons `epoch` with `culprit`, unless somebody was first or the epoch is over. The diagnosis
  /// stands already.
  void Poison(int culprit, std::uint32_t epoch) {
    State seen = Load();
    while (seen.epoch == epoch && seen.poison == 0 && !TryPoison(seen, culprit)) {
    }
  }

  /// A rank will not come any more. If others wait in a round, explains and poisons.
  template <typename Explain>
  void Depart(int rank, Explain&& explain) {
    State seen = Load();
    for (;;) {
      State next = seen;
      next.departed = seen.departed + 1;
      if (seen.arrived > 0 && seen.poison == 0) {
        explain(Reason::kDeparted);
        next.poison = static_cast<std::uint32_t>(rank) + 1;
        next.parked = false;
      }
      if (!Exchange(seen, next)) continue;
      if (seen.parked && !next.parked) Platform::UnparkAll(word_);
      return;
    }
  }

  /// All ranks are expected again. While no rank runs.
  void Return() {
    State seen = Load();
    State next;
    do {
      next = seen;
      next.departed = 0;
    } while (!Exchange(seen, next));
  }

  /// Heals a poisoned word, when nobody waits at it any more: a new epoch, in which calls of older
  /// ones are stale.
  void Reset() {
    State seen = Load();
    while (seen.poison != 0 && !Exchange(seen, State{.generation = seen.generation,
                                                     .departed = seen.departed,
                                                     .epoch = (seen.epoch + 1) & kEpochMask})) {
    }
  }

 private:
  struct State {
    bool parked = false;
    std::uint32_t generation = 0;
    std::uint32_t poison = 0;
    std::uint32_t arrived = 0;
    std::uint32_t departed = 0;
    std::uint32_t epoch = 0;
  };

  static constexpr std::uint32_t kGenerationMask = (1u << 19) - 1;
  static constexpr std::uint32_t kPoisonMask = (1u << 11) - 1;
  static constexpr std::uint32_t kCountMask = (1u << 10) - 1;
  static constexpr std::uint32_t kEpochMask = (1u << 12) - 1;

  static std::uint32_t LowHalf(const State& state) {
    return (state.parked ? 1u : 0u) | (state.generation << 1) | (state.poison << 20);
  }
  static std::uint64_t Pack(const State& state) {
    const std::uint32_t high = state.arrived | (state.departed << 10) | (state.epoch << 20);
    return (static_cast<std::uint64_t>(high) << 32) | LowHalf(state);
  }
  static State Unpack(std::uint64_t word) {
    const auto low = static_cast<std::uint32_t>(word);
    const auto high = static_cast<std::uint32_t>(word >> 32);
    return {.parked = (low & 1) != 0,
            .generation = (low >> 1) & kGenerationMask,
            .poison = (low >> 20) & kPoisonMask,
            .arrived = high & kCountMask,
            .departed = (high >> 10) & kCountMask,
            .epoch = high >> 20};
  }

  static State Completed(const State& seen) {
    State next = seen;
    next.parked = false;
    next.generation = (seen.generation + 1) & kGenerationMask;
    next.arrived = 0;
    return next;
  }
  static Outcome Poisoned(const State& seen) {
    return {.verdict = Verdict::kPoisoned, .culprit = static_cast<int>(seen.poison) - 1};
  }

  // Acquire pairs with the release of every exchange.
  State Load() const { return Unpack(word_.load(std::memory_order_acquire)); }

  // The only write there is. On failure `seen` becomes what is there now.
  bool Exchange(State& seen, const State& next) {
    std::uint64_t expected = Pack(seen);
    if (word_.compare_exchange_weak(expected, Pack(next), std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      return true;
    }
    seen = Unpack(expected);
    return false;
  }

  bool TryPoison(State& seen, int culprit) {
    State next = seen;
    next.poison = static_cast<std::uint32_t>(culprit) + 1;
    next.parked = false;
    const bool parked = seen.parked;
    if (!Exchange(seen, next)) return false;
    if (parked) Platform::UnparkAll(word_);
    return true;
  }

  // Whether the wait for the round of `mine` is over, and how.
  static bool Over(const State& seen, const State& mine, Outcome& outcome) {
    if (seen.epoch != mine.epoch) {
      outcome.verdict = Verdict::kStale;
    } else if (seen.generation != mine.generation) {
      outcome.verdict = Verdict::kCompleted;
    } else if (seen.poison != 0) {
      outcome.verdict = Verdict::kPoisoned;
      outcome.culprit = static_cast<int>(seen.poison) - 1;
    } else {
      return false;
    }
    return true;
  }

  template <typename Explain>
  Outcome Wait(int rank, const State& mine, std::chrono::nanoseconds timeout,
               Patience<Platform>& patience, Explain& explain) {
    Outcome outcome{.verdict = Verdict::kCompleted, .arrived = true};
    const Clock::time_point start = Platform::Now();
    const Clock::time_point deadline = start + timeout;
    const auto over = [&] { return Over(Load(), mine, outcome); };
    if (patience.Await(start, deadline, over)) return WaitedSince(start, outcome);
    State seen = Load();
    while (!Over(seen, mine, outcome)) {
      if (Platform::Now() < deadline) {
        Sleep(seen, deadline);
        continue;
      }
      explain(Reason::kTimeout);
      if (TryPoison(seen, rank)) {
        outcome.verdict = Verdict::kPoisoned;
        outcome.culprit = rank;
        break;
      }
    }
    return WaitedSince(start, outcome);
  }

  // Says that somebody sleeps, sleeps, and looks again.
  void Sleep(State& seen, Clock::time_point deadline) {
    State parked = seen;
    parked.parked = true;
    if (!seen.parked && !Exchange(seen, parked)) return;
    Platform::Park(word_, LowHalf(parked), deadline);
    seen = Load();
  }

  static Outcome WaitedSince(Clock::time_point start, Outcome outcome) {
    outcome.waited = Platform::Now() - start;
    return outcome;
  }

  const std::uint32_t world_size_;
  // Alone on its pair of cache lines: everybody spins on it.
  alignas(128) typename Platform::template Atomic<std::uint64_t> word_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_
