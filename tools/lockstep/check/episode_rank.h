// One rank's way through an episode of the campaign.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_RANK_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_RANK_H_

#include <random>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/worker.h"
#include "lockstep/tools/lockstep/check/episode_plan.h"

namespace lockstep::tools {

/// Makes the calls of a plan, with its mishap if it is this rank's, and keeps every verdict. Run by
/// the rank's thread; read when the Run is over. The arguments must outlive it.
class EpisodeRank {
 public:
  /// The text of a planned error or exception.
  static constexpr char kPlanned[] = "planned: the task fails";

  EpisodeRank(const EpisodePlan& plan, CollectiveBarrier& barrier, absl::Duration timeout, int rank)
      : plan_(plan),
        barrier_(barrier),
        timeout_(timeout),
        random_(plan.seed + static_cast<std::uint64_t>(rank)) {}

  absl::Status Run(Worker& worker);

  /// One per call that returned.
  const std::vector<absl::Status>& verdicts() const { return verdicts_; }
  int wrong_results() const { return wrong_results_; }
  /// Whether a call on the failed group was not refused.
  bool worked_on() const { return worked_on_; }

 private:
  // Makes ranks arrive in varying orders: at once, or after running or sleeping for a while.
  void DelayAtRandom();
  absl::Status CallWithMishap(Worker& worker, Communicator& comm, EpisodeCall call);
  absl::Status CallAndCheck(Worker& worker, Communicator& comm, const EpisodeCall& call);
  absl::Status Record(Communicator& comm, absl::Status verdict);

  const EpisodePlan& plan_;
  CollectiveBarrier& barrier_;
  const absl::Duration timeout_;
  std::mt19937_64 random_;
  bool left_ = false;
  std::vector<absl::Status> verdicts_;
  int wrong_results_ = 0;
  bool worked_on_ = false;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_RANK_H_
