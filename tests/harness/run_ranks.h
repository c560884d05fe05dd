// Several ranks in one test.
#ifndef LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_
#define LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/collective/collective_barrier.h"
#include "lockstep/tests/harness/perturbed_communicator.h"

namespace lockstep::testing {

struct RunRanksOptions {
  /// Number of ranks, dealt over the devices in order: at least 1, and at least one per device.
  int world_size = 2;
  std::vector<Device> devices = {Device::Cpu()};
  CollectiveBarrier::Options barrier = {.timeout = absl::Seconds(10)};
  Perturbation perturbation = {};
  /// How long all of it may take; positive and finite.
  absl::Duration limit = absl::Seconds(60);
};

/// Runs `body` once per rank, all at once, each on a thread of its own, and returns the status of
/// the rank that failed first, with the rank before its text: "rank 2: y: element [0, 4] is ...".
/// For any test framework:
///
///   absl::Status status = lockstep::testing::RunRanks(
///       {.world_size = 4}, [](lockstep::Worker& worker, lockstep::Communicator& comm) {
///         return MyLayerEqualsItsReference(worker, comm);
///       });
///
/// The full name works beside GoogleTest, whose own namespace is called testing too.
///
/// Threads: the body runs on world_size threads, so these share what it captures by reference. Each
/// may write to a part of its own, and all of it can be read after the return. The body returns a
/// status instead of asserting, which few frameworks allow on other threads. Threads, workers and
/// group are made anew for each call. A rank's Worker and Communicator, and what it split off or
/// queued, are for its own thread, and only until its body returns. Tensors may outlive them.
/// Several RunRanks may run at once, or one in the body of another.
///
/// `each`, if given, gets what every rank's body returned, by rank; kInternal for a rank that threw
/// or whose thread ended itself. Ranks that are not done within the limit are aborted, and the
/// result is kDeadlineExceeded with the stacks of all threads as they hung (from gdb, where that is
/// installed). If they still hang 10 s later, the stacks are printed and the process ends: no test
/// runs for ever. kInvalidArgument: impossible options; nothing runs, and `each` is empty.
absl::Status RunRanks(const RunRanksOptions& options,
                      absl::FunctionRef<absl::Status(Worker&, Communicator&)> body,
                      std::vector<absl::Status>* each = nullptr);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_RUN_RANKS_H_
