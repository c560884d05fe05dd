// A short run of a group in which something goes wrong, and the judgement on what became of it.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_H_

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/executor.h"
#include "lockstep/tools/lockstep/check/episode_plan.h"

namespace lockstep::tools {

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
/// and checks that it computes again. `timeout` is the group's: short where the plan has to time
/// out, otherwise longer than a busy machine keeps any rank from running.
EpisodeFindings RunEpisode(const EpisodePlan& plan, Executor& executor, CollectiveBarrier& barrier,
                           absl::Duration timeout);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_H_
