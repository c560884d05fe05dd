// What a host can write: a Communicator that stands in front of a group's, known to nobody.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "lockstep/tests/collective/transports.h"
#include "lockstep/tests/harness/child_process.h"

namespace host {

using lockstep::CollectiveCall;
using lockstep::CollectiveKind;
using lockstep::Communicator;
using lockstep::CommunicatorStats;

// Keeps a list of what passes.
class Logging final : public Communicator {
 public:
  explicit Logging(Communicator& inner)
      : Communicator(inner.rank(), inner.world_size(), DeviceOf(inner)), inner_(inner) {}

  CommunicatorStats stats() const override { return inner_.stats(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override {
    return inner_.Split(color, key);
  }
  absl::Status Fail(absl::Status status) override { return inner_.Fail(std::move(status)); }
  absl::Status Synchronize() override { return inner_.Synchronize(); }

  std::vector<CollectiveKind> calls, asides, refused;
  int joins = 0;

 protected:
  absl::Status Execute(const CollectiveCall& call) override {
    (call.aside ? asides : calls).push_back(call.kind);
    return ExecuteOn(inner_, call);
  }
  absl::Status Refuse(const CollectiveCall& call, absl::Status error) override {
    refused.push_back(call.kind);
    return RefuseOn(inner_, call, std::move(error));
  }
  absl::Status JoinSideStream() override {
    ++joins;
    return JoinSideStreamOn(inner_);
  }

 private:
  Communicator& inner_;
};

}  // namespace host

namespace lockstep {
namespace {

using host::Logging;
using testing::CreateRanks;
using testing::Expect;
using testing::Guarded;
using testing::Ranks;
using testing::Says;
using testing::Transports;

absl::Status CallAll(Worker& worker, Communicator& inner) {
  Logging comm(inner);
  const int n = comm.world_size();
  LOCKSTEP_RETURN_IF_ERROR(Expect(comm.rank() == inner.rank() && n == inner.world_size(),
                                  "it is another rank, or of another group"));
  Guarded x(worker, DType::kFloat32, 6 * n);
  Guarded part(worker, DType::kFloat32, 6);
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, comm.rank() + 1, x.tensor()));
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(x.tensor(), part.tensor()));
  {
    LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective gathered,
                              comm.AllGatherAsync(part.tensor(), x.tensor()));
    LOCKSTEP_RETURN_IF_ERROR(gathered.Wait());
  }
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor(), ReduceOp::kMax));
  LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
  LOCKSTEP_ASSIGN_OR_RETURN(auto half, comm.Split(comm.rank() % 2, comm.rank()));
  LOCKSTEP_RETURN_IF_ERROR(Logging(*half).Barrier());
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  LOCKSTEP_RETURN_IF_ERROR(x.Download());
  LOCKSTEP_RETURN_IF_ERROR(
      Expect(x.Get(0) == n * (n + 1) / 2 && x.Get(6 * n - 1) == n * (n + 1) / 2,
             absl::StrCat("the sum is ", x.Get(0))));
  const std::vector<CollectiveKind> expected = {
      CollectiveKind::kReduceScatter, CollectiveKind::kAllReduce, CollectiveKind::kBarrier};
  return Expect(comm.calls == expected && comm.refused.empty() && comm.joins == 1 &&
                    comm.asides == std::vector{CollectiveKind::kAllGather},
                "something else passed than what was called");
}

TEST_CASE("asynchronous calls and all others pass a Communicator that a host puts in front",
          "[gpu]") {
  for (const auto& transport : Transports()) {
    INFO(transport.name);
    auto ranks = CreateRanks(std::max(2, transport.min_ranks()), transport);
    REQUIRE_OK(ranks);
    REQUIRE_OK(ranks->Run(CallAll));
  }
}

TEST_CASE("what a rank refuses behind a Communicator in front of it fails the others") {
  auto ranks = Ranks::Create(2);
  REQUIRE_OK(ranks);
  const auto statuses = ranks->RunEach([](Worker& worker, Communicator& inner) -> absl::Status {
    Logging comm(inner);
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({4}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, worker.Zeros({5}, DType::kFloat32));
    const absl::Status status = comm.AllReduce(x, worker.rank() == 0 ? y : x);
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(comm.refused.size() == (worker.rank() == 0 ? 1u : 0u), "it passed elsewhere"));
    return status;
  });
  CHECK(Says(statuses[0], "they must have one shape"));
  CHECK(Says(statuses[1], "rank 0 refused its call"));
}

}  // namespace
}  // namespace lockstep
