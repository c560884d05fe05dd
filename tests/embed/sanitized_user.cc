// A user's program that is built with a sanitizer, and links a lockstep that is not: what lockstep
// orders, the sanitizer must know of.
#include <cstdio>
#include <thread>
#include <vector>

#include "lockstep/collective/collective_barrier.h"

using namespace lockstep;

namespace {

absl::Status Expect(bool condition, const char* text) {
  return condition ? absl::OkStatus() : absl::InternalError(text);
}

// Plain data that Barrier, a sum, and Run itself hand from thread to thread.
absl::Status HandOver(Executor& executor, CollectiveBarrier& barrier) {
  std::vector<float> x(static_cast<std::size_t>(executor.world_size()));
  int counter = 0;
  for (int i = 0; i < 50; ++i) {
    LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
      Communicator& comm = barrier.communicator(worker.rank());
      float& mine = x[worker.rank()];
      mine = static_cast<float>(worker.rank() + 1);
      const Tensor tensor = Tensor::View(&mine, {1}, DType::kFloat32);
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
      if (worker.rank() == 0) ++counter;
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      if (worker.rank() == 1) ++counter;
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      return Expect(counter == 2 * (i + 1), "a rank did not see what another wrote");
    }));
    ++counter, --counter;  // the caller's turn
  }
  return Expect(x[0] == 6, "the sum is wrong");
}

// A failure that one rank's thread explains to the others, and a group that is healed by the
// caller.
absl::Status FailAndHeal(Executor& executor, CollectiveBarrier& barrier) {
  for (int i = 0; i < 20; ++i) {
    std::vector<int> seen(static_cast<std::size_t>(executor.world_size()));
    const absl::Status failed = executor.Run([&](Worker& worker) -> absl::Status {
      seen[worker.rank()] = i;
      if (worker.rank() == 1) return absl::InternalError("on purpose");
      return barrier.communicator(worker.rank()).Barrier();
    });
    LOCKSTEP_RETURN_IF_ERROR(Expect(!failed.ok() && seen[0] == i, "nobody failed"));
    LOCKSTEP_RETURN_IF_ERROR(barrier.Reset());
  }
  return absl::OkStatus();
}

// Groups that are split off, and a round that is aborted from outside.
absl::Status SplitAndAbort(Executor& executor, CollectiveBarrier& barrier) {
  int counter = 0;
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        const auto part,
        barrier.communicator(worker.rank()).Split(worker.rank() == 2 ? 1 : 0, worker.rank()));
    if (worker.rank() == 0) ++counter;
    LOCKSTEP_RETURN_IF_ERROR(part->Barrier());
    if (worker.rank() == 1) ++counter;
    return part->Barrier();
  }));
  std::thread outsider([&] { barrier.Abort(absl::AbortedError("enough")); });
  const absl::Status aborted = executor.Run([&](Worker& worker) -> absl::Status {
    for (;;) LOCKSTEP_RETURN_IF_ERROR(barrier.communicator(worker.rank()).Barrier());
  });
  outsider.join();
  LOCKSTEP_RETURN_IF_ERROR(Expect(counter == 2 && !aborted.ok(), "the abort was not heard"));
  return barrier.Reset();
}

// The host's own threads, each with one end of the group.
absl::Status OwnThreads() {
  const std::vector<Stream> streams(2);
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
  std::vector<absl::Status> statuses(2);
  int shared = 0;
  const auto body = [&](int rank) -> absl::Status {
    Communicator& comm = barrier->communicator(rank);
    for (int i = 0; i < 200; ++i) {
      if (i % 2 == rank) ++shared;
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
    }
    return absl::OkStatus();
  };
  std::thread other([&] { statuses[1] = body(1); });
  statuses[0] = body(0);
  other.join();
  LOCKSTEP_RETURN_IF_ERROR(statuses[0]);
  LOCKSTEP_RETURN_IF_ERROR(statuses[1]);
  return Expect(shared == 200, "a turn was lost");
}

absl::Status Main() {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor,
                            Executor::Create({.devices = {Device::Cpu()}, .world_size = 3}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
  LOCKSTEP_RETURN_IF_ERROR(HandOver(*executor, *barrier));
  LOCKSTEP_RETURN_IF_ERROR(FailAndHeal(*executor, *barrier));
  LOCKSTEP_RETURN_IF_ERROR(SplitAndAbort(*executor, *barrier));
  return OwnThreads();
}

}  // namespace

int main() {
  const absl::Status status = Main();
  std::printf("%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
