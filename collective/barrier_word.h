// The word at which all ranks of a group meet.
#ifndef LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_
#define LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "lockstep/runtime/futex.h"
#include "lockstep/runtime/patience.h"

namespace lockstep::internal {

/// `bits` bits of a 64-bit word, from bit `shift` on.
struct BitField {
  int shift;
  int bits;

  constexpr std::uint32_t max() const { return (std::uint32_t{1} << bits) - 1; }
  constexpr std::uint64_t mask() const { return std::uint64_t{max()} << shift; }
  constexpr std::uint64_t Put(std::uint32_t value) const { return std::uint64_t{value} << shift; }
  constexpr std::uint32_t Get(std::uint64_t word) const {
    return static_cast<std::uint32_t>(word >> shift) & max();
  }
  /// value + 1, and 0 after max().
  constexpr std::uint32_t Next(std::uint32_t value) const { return (value + 1) & max(); }
};

/// A barrier whose verdicts are given by one 64-bit atomic word. Completing a round, running out of
/// time, departing and aborting are one compare-and-swap of it each, so they cannot contradict each
/// other: a round completes for all of its ranks or for none. Arrivals are counted beside it, on a
/// cache line that nobody polls; the rank that finds itself the last is the one that completes the
/// round, if nothing else has become of it by then.
///
/// It is the meeting and nothing else: it moves no data and knows no collective. The diagnosis of a
/// failure and the memory of the ranks belong to its owner (LocalGroup); a rank's way through a
/// round is LocalCommunicator's. The algorithm is the centralized barrier of Mellor-Crummey and
/// Scott ("Algorithms for Scalable Synchronization on Shared-Memory Multiprocessors", ACM TOCS
/// 9(1), 1991, section 3.1) with a count of rounds in place of the sense, and with deadlines,
/// failures and departures in the same word.
///
///   BarrierWord<NativePlatform> word(world_size);
///   // On each rank's thread, once a round:
///   auto outcome = word.Meet(rank, epoch, timeout, patience, agree, explain);
///   if (outcome.verdict == Verdict::kCompleted) { ... }   // reads what all ranks wrote before
///   if (outcome.verdict == Verdict::kPoisoned) { ... }    // reads why: outcome.culprit wrote it
///   word.Reset();   // after a failure, when all ranks are out: epoch + 1
///
/// Requires:
/// - 1 <= world_size <= kMaxRanks. A rank is in [0, world_size), and is one thread at a time.
/// - Within an epoch all ranks call Meet() equally often. Each names the epoch that it last read by
///   health(); the first is 0.
/// - A rank that departs does so once, and does not meet again before Return().
/// - Return() is called while no rank is in Meet() or Depart(), and Reset() while none is in
///   Meet(), by one thread at a time. Where a rank may come at any moment, both look after they
///   have spoken: it tells by a sequentially consistent store that it is there before it calls
///   Meet(), and who resets finds the word poisoned before it asks for that by a sequentially
///   consistent load. Either the one sees the poison, or the other the rank.
/// - `agree` and `explain` call nothing of this word but health(), and return soon: others wait.
///
/// Guarantees:
/// - One verdict a round: every rank that arrived gets the same one, with the same culprit. A round
///   that is complete stays complete, though the next may be poisoned already.
/// - The first poison stays until Reset(). Its diagnosis was written before.
/// - No wait outlasts its timeout by more than scheduling takes: every sleep has an absolute
///   deadline on the monotonic clock. A sleeper is woken by the change that ends its wait. Where
///   nobody sleeps, no wake is paid for.
/// - Once a call has made its last change of the word, it uses its address alone, to wake others.
///   So the word may be destroyed as soon as every call has made that change or has its verdict.
/// - The word locks and allocates nothing, and no call of it is a cancellation point.
///
/// Memory ordering: all changes of the word are acquire-release exchanges, and all looks at it
/// acquire; that these are sequentially consistent is for Reset() alone. So every change is seen
/// together with whatever the threads that made it, and all changes before it, had written until
/// then. Arriving is an acquire-release decrement, so that the last rank has seen what all wrote,
/// and passes it on with the word. Each method says what follows.
///
/// The counters wrap without harm:
/// - generation (19 bits). A waiter compares the word's with that of its own round. The next round
///   needs this rank to complete, so the two never differ by more than one, and one bit would do.
/// - epoch (12 bits). A call of an older epoch is taken for a new one only if its rank has not read
///   the epoch for a multiple of 4,096 resets, exactly. It then counts for the round that its rank
///   is due at.
/// - An exchange that succeeds after the word has gone all the way round is right as well: the next
///   state depends on the one that is replaced, and on nothing that was seen before it.
///
/// Platform gives the atomics, the place to sleep and the clock: NativePlatform (runtime/futex.h),
/// or the simulated machine on which tests/explore runs this very header. tools/model/barrier.pml
/// is the protocol as a model.
template <typename Platform>
class BarrierWord {
 public:
  static constexpr int kMaxRanks = 1000;

  enum class Verdict : std::uint8_t {
    kCompleted,  // all ranks have arrived, and agreed
    kPoisoned,   // the round failed, for all of them
    kStale,      // the call belongs to another epoch
  };

  struct Outcome {
    Verdict verdict;
    /// Poisoned: the index given to the Poison() that came first, or the rank that poisoned in
    /// Meet(). Otherwise -1.
    int culprit = -1;
    /// Whether this rank was counted. It was not if it found the word poisoned or in another epoch,
    /// or that a rank had departed.
    bool arrived = false;
    /// Completed: this rank came last.
    bool last = false;
    /// How long this rank waited.
    std::chrono::nanoseconds waited{0};
  };

  /// What a rank must explain before it poisons the word: its own time ran out, or a rank that it
  /// would wait for has departed.
  enum class Reason : std::uint8_t { kTimeout, kDeparted };

  /// A word in epoch 0, with nobody there. `first_generation` lets a test begin shortly before the
  /// counter wraps.
  explicit BarrierWord(int world_size, std::uint32_t first_generation = 0)
      : world_size_(static_cast<std::uint32_t>(world_size)),
        missing_(world_size_),
        word_(Pack({.generation = first_generation & kGeneration.max()})) {}
  BarrierWord(const BarrierWord&) = delete;
  BarrierWord& operator=(const BarrierWord&) = delete;

  struct Health {
    std::uint32_t epoch;
    /// -1 when the word is not poisoned.
    int culprit;
  };
  /// From any thread, at any time.
  ///
  /// Memory ordering: sequentially consistent. With a culprit, its diagnosis is visible; with a new
  /// epoch, what was written before the Reset().
  Health health() const {
    const State seen = Load();
    return {seen.epoch, static_cast<int>(seen.poison) - 1};
  }

  /// Arrives as `rank` in the round at hand, and waits for the others, for `timeout` at most:
  /// awake as long as `patience` has it, then asleep. On the rank's thread, which owns `patience`.
  /// Returns at once, uncounted, where the word is poisoned or in another epoch.
  ///
  /// The rank that comes last calls agree(), once, before it completes the round; on false it
  /// poisons the word with its own index instead, agree() having left the diagnosis. A rank calls
  /// explain(reason), which leaves a diagnosis, before it poisons the word with its own index
  /// because its time is over or another rank has departed. Where another thread changes the word
  /// first, either call may be in vain, and explain() may come again.
  ///
  /// Memory ordering: what a rank wrote before Meet() happens before agree() on the last rank, and
  /// before the return of every rank with kCompleted. What the culprit wrote, by explain() and
  /// agree() too, happens before a return with kPoisoned.
  template <typename Agree, typename Explain>
  Outcome Meet(int rank, std::uint32_t epoch, std::chrono::nanoseconds timeout,
               Patience<Platform>& patience, Agree&& agree, Explain&& explain) {
    // The round at hand: it does not end without this rank, unless it fails.
    const State mine = Load();
    if (mine.epoch != epoch) return {.verdict = Verdict::kStale};
    if (mine.poison != 0) return Poisoned(mine);
    // Without a rank that has departed the round will not be complete.
    const bool last = mine.departed == 0 && missing_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    return last ? Complete(rank, mine, agree()) : Wait(rank, mine, timeout, patience, explain);
  }

  /// Fails the round at hand and all later ones of `epoch`. Does nothing if the word is poisoned
  /// already or in another epoch. From any thread; `culprit` is in [0, world_size], where
  /// world_size stands for those who are no rank. The diagnosis has been written before.
  ///
  /// Memory ordering: what was written before is visible to all who see this culprit.
  void Poison(int culprit, std::uint32_t epoch) {
    State seen = Load();
    while (seen.epoch == epoch && seen.poison == 0 && !TryPoison(seen, culprit)) {
    }
  }

  /// Tells that one rank will not come any more, until Return(). Whoever waits for it, now or
  /// later, poisons the word. On that rank's thread.
  ///
  /// Memory ordering: what was written before is visible to all who find that a rank has departed.
  void Depart() {
    State seen = Load();
    State next;
    do {
      next = seen;
      next.departed = seen.departed + 1;
      next.parked = false;
    } while (!Exchange(seen, next));
    if (seen.parked) Platform::UnparkAll(word_);
  }

  /// Expects all ranks again. While no rank runs.
  ///
  /// Memory ordering: what was written before is visible to every later Meet().
  void Return() {
    State seen = Load();
    State next;
    do {
      next = seen;
      next.departed = 0;
    } while (!Exchange(seen, next));
  }

  /// Heals a poisoned word: nobody has arrived, and a new epoch begins, in which calls of older
  /// ones are stale. Ranks that have departed stay so. Does nothing to a healthy word. From one
  /// thread at a time, whichever it is, while no rank is in Meet().
  ///
  /// Memory ordering: what was written before is visible to all who see the new epoch.
  void Reset() {
    State seen = Load();
    while (seen.poison != 0) {
      // Seen by all who see the new epoch.
      missing_.store(world_size_, std::memory_order_relaxed);
      if (Exchange(seen, {.generation = seen.generation,
                          .departed = seen.departed,
                          .epoch = kEpoch.Next(seen.epoch)})) {
        return;
      }
    }
  }

 private:
  // The word, unpacked.
  struct State {
    bool parked = false;           // somebody sleeps, or is about to
    std::uint32_t generation = 0;  // rounds that were completed
    std::uint32_t poison = 0;      // 0, or 1 + the culprit
    std::uint32_t departed = 0;    // ranks that will not come
    std::uint32_t epoch = 0;       // resets
  };

  // Where each of them stands. Nothing else knows.
  static constexpr BitField kParked{.shift = 0, .bits = 1};
  static constexpr BitField kGeneration{.shift = 1, .bits = 19};
  static constexpr BitField kPoison{.shift = 20, .bits = 11};
  static constexpr BitField kDeparted{.shift = 32, .bits = 20};
  static constexpr BitField kEpoch{.shift = 52, .bits = 12};

  static_assert((kParked.mask() | kGeneration.mask() | kPoison.mask()) == 0x7fff'ffff &&
                    kParked.bits + kGeneration.bits + kPoison.bits == 31,
                "what ends a wait lies in the half that the kernel compares, bit 31 free");
  static_assert((kDeparted.mask() | kEpoch.mask()) == 0xffff'ffff'0000'0000 &&
                    kDeparted.bits + kEpoch.bits == 32,
                "the other half is full");
  static_assert(kMaxRanks <= kDeparted.max(), "all ranks can be counted");
  static_assert(kMaxRanks + 1 <= kPoison.max(), "1 + any rank, and 1 + world_size for the others");
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

  static std::uint64_t Pack(const State& state) {
    return kParked.Put(state.parked) | kGeneration.Put(state.generation) |
           kPoison.Put(state.poison) | kDeparted.Put(state.departed) | kEpoch.Put(state.epoch);
  }
  static State Unpack(std::uint64_t word) {
    return {.parked = kParked.Get(word) != 0,
            .generation = kGeneration.Get(word),
            .poison = kPoison.Get(word),
            .departed = kDeparted.Get(word),
            .epoch = kEpoch.Get(word)};
  }
  // What sleepers compare.
  static std::uint32_t LowHalf(const State& state) {
    return static_cast<std::uint32_t>(Pack(state));
  }

  static State Completed(const State& seen) {
    State next = seen;
    next.parked = false;
    next.generation = kGeneration.Next(seen.generation);
    return next;
  }
  static Outcome Poisoned(const State& seen) {
    return {.verdict = Verdict::kPoisoned, .culprit = static_cast<int>(seen.poison) - 1};
  }

  // Acquire pairs with the release of every exchange.
  State Load() const { return Unpack(word_.load(std::memory_order_seq_cst)); }

  // All changes of the word. On failure `seen` becomes what is there now.
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

  // Ends the round of `mine`, in which this rank has come last.
  Outcome Complete(int rank, const State& mine, bool agreed) {
    // For the next round: seen by all who see this one completed.
    missing_.store(world_size_, std::memory_order_relaxed);
    Outcome outcome{.verdict = Verdict::kPoisoned, .arrived = true};
    State seen = mine;
    while (!Over(seen, mine, outcome)) {
      if (!agreed) {
        if (!TryPoison(seen, rank)) continue;
        outcome.culprit = rank;
        break;
      }
      if (!Exchange(seen, Completed(seen))) continue;
      if (seen.parked) Platform::UnparkAll(word_);
      return {.verdict = Verdict::kCompleted, .arrived = true, .last = true};
    }
    return outcome;
  }

  // Whether the round of `mine` is over, and how.
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
    Outcome outcome{.verdict = Verdict::kPoisoned, .arrived = mine.departed == 0};
    const Clock::time_point start = Platform::Now();
    const Clock::time_point deadline = start + timeout;
    State seen = mine;
    const auto ends = [&] {
      seen = Load();
      return seen.departed != 0 || Over(seen, mine, outcome);
    };
    patience.Await(start, deadline, ends);
    while (!Over(seen, mine, outcome)) {
      // Who has departed has not come to this round: it would have ended before.
      const bool departed = seen.departed != 0;
      if (!departed && Platform::Now() < deadline) {
        Sleep(seen, deadline);
        continue;
      }
      explain(departed ? Reason::kDeparted : Reason::kTimeout);
      if (!TryPoison(seen, rank)) continue;
      outcome.culprit = rank;
      break;
    }
    outcome.waited = Platform::Now() - start;
    return outcome;
  }

  // Says that somebody sleeps, sleeps, and looks again.
  void Sleep(State& seen, Clock::time_point deadline) {
    State parked = seen;
    parked.parked = true;
    if (!seen.parked && !Exchange(seen, parked)) return;
    Platform::Park(word_, LowHalf(parked), deadline);
    seen = Load();
  }

  const std::uint32_t world_size_;
  // Ranks that have not arrived in the round at hand. On a pair of cache lines without the word, so
  // that who arrives does not wait for those who poll.
  alignas(128) typename Platform::template Atomic<std::uint32_t> missing_;
  alignas(128) typename Platform::template Atomic<std::uint64_t> word_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_BARRIER_WORD_H_
