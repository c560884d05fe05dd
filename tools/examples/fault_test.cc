// What code does when a rank fails at its third all-reduce: every other rank hears of it at once, and knows why.
#include <cstdio>

#include "lockstep/tests/harness/run_ranks.h"

using namespace lockstep;

absl::Status TrainSteps(Worker& worker, Communicator& comm) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor gradient, worker.Zeros({1000}, DType::kFloat32));
  for (int step = 0; step < 10; ++step) LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(gradient, gradient));
  return absl::OkStatus();
}

int main() {
  lockstep::testing::RunRanksOptions options = {.world_size = 3};
  // Other orders of arrival with every seed.
  for (options.perturbation.seed = 1; options.perturbation.seed <= 5; ++options.perturbation.seed) {
    if (!lockstep::testing::RunRanks(options, TrainSteps).ok()) return 1;
  }
  options.perturbation.faults = {
      {.rank = 2, .at = CollectiveKind::kAllReduce, .nth = 3, .kind = lockstep::testing::FaultKind::kFail}};
  std::vector<absl::Status> each;
  const absl::Status first = lockstep::testing::RunRanks(options, TrainSteps, &each);
  for (const absl::Status& status : each) std::puts(status.ToString().c_str());
  const bool right = !first.ok() && absl::IsInternal(each[2]) && absl::IsAborted(each[0]) && absl::IsAborted(each[1]);
  return right ? 0 : 1;
}
