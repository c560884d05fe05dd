// A short run of a group in which something goes wrong, and the judgement on what became of it.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CAMPAIGN_EPISODE_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CAMPAIGN_EPISODE_H_

#include <cstdint>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/executor.h"
#include "lockstep/tools/lockstep/bench.h"

namespace lockstep::tools {

/// What goes wrong, on one rank, instead of one of its calls.
enum class Mishap : unsigned char {
  kNone,
  kLate,          // comes when the others have waited for a while
  kError,         // its task returns an error
  kException,     // its task throws
  kThreadEnds,    // its thread ends
  kNeverArrives,  // stays away until the others have given up
  kTooLate,       // comes then
  kWrongCount,
  kWrongDtype,
  kWrongReduction,
  kWrongKind,
  kNullPointer,
  kSkips,   // makes one call less
  kExtra,   // makes one call more
  kAborts,  // goes on, while one to three threads from outside abort at moments of their own
};
constexpr int kNumMishaps = 15;
absl::string_view Name(Mishap mishap);
/// Whether a wait has to run out. With no other mishap may one, however slow the machine is: those
/// are for a group whose time-out is out of reach.
bool MustTimeOut(Mishap mishap);

/// One collective of all ranks.
struct EpisodeCall {
  CollectiveKind kind;
  DType dtype;
  ReduceOp op;
  bool in_place;
  std::int64_t bytes;
};

struct EpisodePlan {
  std::vector<EpisodeCall> calls;
  Mishap mishap = Mishap::kNone;
  /// The rank that it happens to, and in place of which of its calls.
  int rank = 0;
  int at = 0;
  /// Of the delays.
  std::uint64_t seed = 0;
  Spoil spoil = nullptr;
};

/// The same plan for the same seed.
EpisodePlan PlanEpisode(std::uint64_t seed, int world_size);

/// What was seen.
struct EpisodeFindings {
  /// Rounds in which all ranks got OK and every element was right.
  int good_rounds = 0;
  /// Rounds in which some ranks got OK, and some an error.
  int split_verdicts = 0;
  /// Results with a wrong element.
  int wrong_results = 0;
  /// After a planned time-out, another of the healed group: this machine was too slow for it.
  bool slow = false;
  /// Why the mishap was not survived, if it was not.
  absl::Status survived;
};

/// Runs `plan`, looks at the verdicts of all ranks and all elements of all results, heals the group
/// and looks whether it computes again. `timeout` is the group's: short where the plan has to time
/// out, else longer than any rank may be kept from running.
EpisodeFindings RunEpisode(const EpisodePlan& plan, Executor& executor, CollectiveBarrier& barrier,
                           absl::Duration timeout);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CAMPAIGN_EPISODE_H_
