// Collectives beside which the rank's stream goes on. On the CPU they are done when the call
// returns.
#include "lockstep/runtime/graph.h"
#include "lockstep/tests/collective/ranks.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::Guarded;
using testing::Ranks;
using testing::Says;
using testing::Transports;

// Runs `body` on a small group of every transport.
void OnEveryTransport(const Ranks::Body& body) {
  for (const auto& transport : Transports()) {
    auto ranks = Ranks::Create(std::max(2, transport.fewest_ranks()), transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    REQUIRE_OK(ranks->Run(body));
  }
}

absl::Status UploadValue(Guarded& data, double value) {
  for (std::int64_t i = 0; i < data.tensor().size(); ++i) data.Set(i, value);
  return data.Upload();
}

absl::Status ExpectAll(Guarded& data, double value) {
  LOCKSTEP_RETURN_IF_ERROR(data.Download());
  for (std::int64_t i = 0; i < data.tensor().size(); ++i) {
    LOCKSTEP_RETURN_IF_ERROR(
        testing::Expect(data.Get(i) == value,
                        absl::StrCat("element ", i, " is ", data.Get(i), ", expected ", value)));
  }
  return absl::OkStatus();
}

TEST_CASE("asynchronous sums keep their order among all calls, whichever form a rank chooses",
          "[gpu]") {
  OnEveryTransport([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const std::int64_t count : {7, 1000, 100'000}) {
      Guarded x(worker, DType::kFloat32, count);
      Guarded y(worker, DType::kFloat32, count);
      const double n = comm.world_size();
      for (int round = 0; round < 20; ++round) {
        // Behind what the stream holds, and beside what comes.
        LOCKSTEP_RETURN_IF_ERROR(Fill(worker, round + 1, x.tensor()));
        LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum,
                                  comm.AllReduceAsync(x.tensor(), x.tensor()));
        LOCKSTEP_RETURN_IF_ERROR(Fill(worker, round, y.tensor()));
        if ((round + comm.rank()) % 2 == 0) {
          LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(y.tensor(), y.tensor()));
        } else {
          LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective other,
                                    comm.AllReduceAsync(y.tensor(), y.tensor()));
          LOCKSTEP_RETURN_IF_ERROR(other.Wait());
        }
        LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
        LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
        LOCKSTEP_RETURN_IF_ERROR(ExpectAll(y, round * n));
        LOCKSTEP_RETURN_IF_ERROR(ExpectAll(x, (round + 1) * n));
      }
    }
    return comm.Synchronize();
  });
}

TEST_CASE("asynchronous collectives of every kind are awaited when their handle goes", "[gpu]") {
  OnEveryTransport([](Worker& worker, Communicator& comm) -> absl::Status {
    const std::int64_t n = comm.world_size();
    Guarded part(worker, DType::kInt32, 1000);
    Guarded whole(worker, DType::kInt32, 1000 * n);
    Guarded other(worker, DType::kInt32, 1000 * n);
    LOCKSTEP_RETURN_IF_ERROR(UploadValue(part, 3));
    { LOCKSTEP_ASSIGN_OR_RETURN(auto pending, comm.AllGatherAsync(part.tensor(), whole.tensor())); }
    LOCKSTEP_RETURN_IF_ERROR(ExpectAll(whole, 3));
    {
      LOCKSTEP_ASSIGN_OR_RETURN(auto pending,
                                comm.ReduceScatterAsync(whole.tensor(), part.tensor()));
    }
    LOCKSTEP_RETURN_IF_ERROR(ExpectAll(part, 3.0 * static_cast<double>(n)));
    { LOCKSTEP_ASSIGN_OR_RETURN(auto pending, comm.AllToAllAsync(whole.tensor(), other.tensor())); }
    LOCKSTEP_RETURN_IF_ERROR(ExpectAll(other, 3));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, comm.rank() + 5, other.tensor()));
    {
      LOCKSTEP_ASSIGN_OR_RETURN(auto pending,
                                comm.BroadcastAsync(other.tensor(), other.tensor(), 1));
    }
    return ExpectAll(other, 6);
  });
}

TEST_CASE("asynchronous collectives may be the first that a group makes", "[gpu]") {
  for (int round = 0; round < 10; ++round) {
    OnEveryTransport([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 1000);
      Guarded y(worker, DType::kFloat32, 1000 * comm.world_size());
      LOCKSTEP_RETURN_IF_ERROR(UploadValue(x, 3));
      LOCKSTEP_ASSIGN_OR_RETURN(auto pending, comm.AllGatherAsync(x.tensor(), y.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(pending.Wait());
      return ExpectAll(y, 3);
    });
  }
}

TEST_CASE("asynchronous calls that differ fail on every rank, and the group heals", "[gpu]") {
  for (const auto& transport : Transports()) {
    auto ranks = Ranks::Create(2, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    const auto sum = [](std::int64_t uneven) {
      return [uneven](Worker& worker, Communicator& comm) -> absl::Status {
        Guarded x(worker, DType::kFloat32, 10 + uneven * comm.rank());
        LOCKSTEP_RETURN_IF_ERROR(UploadValue(x, 1));
        LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective pending,
                                  comm.AllReduceAsync(x.tensor(), x.tensor()));
        LOCKSTEP_RETURN_IF_ERROR(pending.Wait());
        return ExpectAll(x, comm.world_size());
      };
    };
    for (const absl::Status& status : ranks->RunEach(sum(1)))
      CHECK(Says(status, "differ in count"));
    REQUIRE_OK(ranks->barrier->Reset());
    REQUIRE_OK(ranks->Run(sum(0)));
  }
}

TEST_CASE("asynchronous sums can be captured, and replay beside other work", "[gpu]") {
  for (const auto& transport : Transports()) {
    if (transport.devices[0].is_cpu() ||
        (transport.options.transport != TransportKind::kPeer && transport.most_ranks != 2)) {
      continue;
    }
    auto ranks = Ranks::Create(2, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 5000);
      Guarded y(worker, DType::kFloat32, 5000);
      LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&]() -> absl::Status {
                                  LOCKSTEP_ASSIGN_OR_RETURN(
                                      auto sum, comm.AllReduceAsync(x.tensor(), x.tensor()));
                                  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 7, y.tensor()));
                                  LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
                                  return comm.AllReduce(y.tensor(), y.tensor());
                                }));
      for (int replay = 0; replay < 100; ++replay) {
        LOCKSTEP_RETURN_IF_ERROR(UploadValue(x, replay));
        LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
        LOCKSTEP_RETURN_IF_ERROR(ExpectAll(x, 2.0 * replay));
        LOCKSTEP_RETURN_IF_ERROR(ExpectAll(y, 14));
      }
      return comm.Synchronize();
    }));
  }
}

}  // namespace
}  // namespace lockstep
