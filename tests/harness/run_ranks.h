// Several ranks in one test.
#ifndef LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_
#define LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/collective/collective_barrier.h"
#include "lockstep/tests/harness/perturbed_communicator.h"

namespace lockstep::testing {

struct RunRanksOptions {
  int world_size = 2;
  std::vector<Device> devices = {Device::Cpu()};
  CollectiveBarrier::Options barrier = {.timeout = absl::Seconds(10)};
  Perturbation perturbation = {};
  /// How long all of it may take.
  absl::Duration limit = absl::Seconds(60);
};

/// Runs `body` once per rank, each on a thread of its own, and returns the status of the rank that
/// failed first. From any test framework:
///
///   absl::Status status = RunRanks({.world_size = 4}, [](Worker& worker, Communicator& comm) {
///     return MyLayerEqualsItsReference(worker, comm);
///   });
///
/// `each`, if given, gets what every rank's body returned; kInternal for a rank that threw. Ranks
/// that are not done within the limit are aborted, and the result is kDeadlineExceeded with the
/// stacks of all threads as they hung (from gdb, where that is installed); if they hang even then,
/// the stacks are printed and the process ends: no test runs for ever.
absl::Status RunRanks(const RunRanksOptions& options,
                      absl::FunctionRef<absl::Status(Worker&, Communicator&)> body,
                      std::vector<absl::Status>* each = nullptr);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_
