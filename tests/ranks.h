// Ranks that can talk to each other: what tests of collectives and layers begin with.
#ifndef LOCKSTEP_TESTS_RANKS_H_
#define LOCKSTEP_TESTS_RANKS_H_

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/executor.h"

namespace lockstep::testing {

/// An executor, and a group of all its ranks.
///
///   auto ranks = Ranks::Create(4);
///   REQUIRE_OK(ranks);
///   REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) { return comm.Barrier(); }));
class Ranks {
 public:
  using Body = std::function<absl::Status(Worker&, Communicator&)>;

  static absl::StatusOr<Ranks> Create(int world_size, CollectiveBarrier::Options options = {},
                                      std::vector<Device> devices = {Device::Cpu()}) {
    Ranks ranks;
    LOCKSTEP_ASSIGN_OR_RETURN(ranks.executor, Executor::Create({.devices = std::move(devices),
                                                                .world_size = world_size}));
    LOCKSTEP_ASSIGN_OR_RETURN(ranks.barrier, CollectiveBarrier::Create(*ranks.executor, options));
    return ranks;
  }

  int world_size() const { return executor->world_size(); }

  /// The executor's own verdict.
  absl::Status Run(const Body& body) {
    return executor->Run(
        [&](Worker& worker) { return body(worker, barrier->communicator(worker.rank())); });
  }

  /// What each rank's body returned, without the executor hearing of failures.
  std::vector<absl::Status> RunEach(const Body& body) {
    std::vector<absl::Status> statuses(static_cast<std::size_t>(world_size()));
    const absl::Status run = Run([&](Worker& worker, Communicator& comm) {
      statuses[worker.rank()] = body(worker, comm);
      return absl::OkStatus();
    });
    for (absl::Status& status : statuses) status.Update(run);
    return statuses;
  }

  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_RANKS_H_
