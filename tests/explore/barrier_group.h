// Ranks around a barrier word, and what must hold whatever happens to them.
#ifndef LOCKSTEP_TESTS_EXPLORE_BARRIER_GROUP_H_
#define LOCKSTEP_TESTS_EXPLORE_BARRIER_GROUP_H_

#include <array>
#include <cstdint>

#include "lockstep/collective/barrier_word.h"
#include "lockstep/tests/explore/simulated_platform.h"

namespace lockstep::explore {

using Word = internal::BarrierWord<SimulatedPlatform>;
using Patience = internal::Patience<SimulatedPlatform>;
using internal::PatienceLimits;

/// Sleeps at once.
constexpr PatienceLimits kImpatient{.budget = nanoseconds(0)};

/// Each rank brings a plain value to every round, into one of two places, for even and for odd
/// rounds, as in LocalGroup. Meet() fails the execution unless
///   - nobody completes a round to which not all have come,
///   - all who come to a round get one verdict, and one culprit, and one of them came last,
///   - who explains names the right reason, and no time-out before its time,
///   - what all brought can be read without a race when they are asked whether they agree, and by
///     everybody after a completed round,
///   - the diagnosis of the culprit can be read without a race after a poisoned one.
class Group {
 public:
  explicit Group(int world_size, PatienceLimits limits = kImpatient,
                 std::uint32_t first_generation = 0)
      : world_size_(world_size), word_(world_size, first_generation) {
    patience_.fill(Patience(limits));
  }

  Word& word() { return word_; }
  /// From that round on the last rank disagrees.
  void DisagreeFrom(int round) { disagree_from_ = round; }

  Word::Verdict Meet(int rank, int round, nanoseconds timeout, std::uint32_t epoch = 0);
  /// Ends the running rank's task.
  void Depart();
  /// Leaves the diagnosis of `culprit`, a rank or world_size for the outsider.
  void Diagnose(int culprit) { diagnosis_[Index(culprit)].Write(culprit + 1); }
  /// Finds a diagnosis if the word is poisoned.
  void CheckHealth();

  /// A digit for each round: 0 nobody came, 1 completed, 2 poisoned, 3 stale for somebody.
  int Outcome(int num_rounds) const;

 private:
  struct Round {
    int came = 0;
    int last = 0;
    int culprit = -1;
    int verdict = 0;
  };

  static std::size_t Index(int i) { return static_cast<std::size_t>(i); }
  bool Agree(int round);
  void Judge(const Word::Outcome& outcome, int round);

  const int world_size_;
  Word word_;
  std::array<Patience, kMaxThreads> patience_;
  int disagree_from_ = 1000;
  bool somebody_departs_ = false;
  std::array<std::array<Plain<int>, kMaxThreads>, 2> brought_;
  std::array<Plain<int>, kMaxThreads + 1> diagnosis_;
  // Of the test, not of the machine: everybody may look at it at any time.
  std::array<Round, 8> rounds_;
};

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_BARRIER_GROUP_H_
