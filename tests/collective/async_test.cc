// Collectives beside which the rank's stream goes on, and their handles. On the CPU they are done
// when the call returns.
#include "lockstep/runtime/graph.h"
#include "lockstep/tests/collective/transports.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::CreateRanks;
using testing::Guarded;
using testing::Ranks;
using testing::Says;
using testing::Transports;

// Runs `body` on a small group of every transport.
void OnEveryTransport(const Ranks::Body& body) {
  for (const auto& transport : Transports()) {
    auto ranks = CreateRanks(std::max(2, transport.min_ranks()), transport);
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
        // Behind what the stream holds, and beside what it is given next.
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
    auto ranks = CreateRanks(2, transport);
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
        (transport.options.transport != TransportKind::kPeer && transport.max_ranks != 2)) {
      continue;
    }
    auto ranks = CreateRanks(2, transport);
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

TEST_CASE("asynchronous sums on few multiprocessors have the bits of others", "[gpu]") {
  OnEveryTransport([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const std::int64_t count : {1, 1000, 100'003, 3'000'001}) {
      Guarded x(worker, DType::kBFloat16, count);
      Guarded expected(worker, DType::kBFloat16, count);
      Guarded found(worker, DType::kBFloat16, count);
      for (std::int64_t i = 0; i < count; ++i) {
        x.Set(i, static_cast<double>((i * 37 + comm.rank() * 11) % 257) / 8);
      }
      LOCKSTEP_RETURN_IF_ERROR(x.Upload());
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), expected.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(expected.Download());
      for (const int most : {0, 1, 2, 3, 4, 8, 1000}) {
        LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 0, found.tensor()));
        // The ranks need not ask for the same.
        LOCKSTEP_ASSIGN_OR_RETURN(
            PendingCollective sum,
            comm.AllReduceAsync(x.tensor(), found.tensor(), ReduceOp::kSum,
                                {.max_multiprocessors = comm.rank() == 0 ? most : 2 * most}));
        LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
        LOCKSTEP_RETURN_IF_ERROR(found.Download());
        for (std::int64_t i = 0; i < count; ++i) {
          LOCKSTEP_RETURN_IF_ERROR(
              testing::Expect(found.Get(i) == expected.Get(i),
                              absl::StrCat("element ", i, " of ", count, " on at most ", most,
                                           " is ", found.Get(i), ", expected ", expected.Get(i))));
        }
      }
    }
    return absl::OkStatus();
  });
}

// Records what it is asked for, and fails where it is told to.
class Recording final : public Communicator {
 public:
  Recording() : Communicator(0, 1, Device::Cpu()) {}
  CommunicatorStats stats() const override { return {}; }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int, int) override { return nullptr; }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::Status Fail(absl::Status status) override { return status; }

  std::string log;
  int most = -1;  // multiprocessors of the last call
  absl::Status of_call, of_join;

 protected:
  absl::Status Execute(const CollectiveCall& call) override {
    most = call.max_multiprocessors;
    return Note(call.aside ? 'a' : 'x', of_call);
  }
  absl::Status Refuse(const CollectiveCall&, absl::Status error) override {
    return Note('r', std::move(error));
  }
  absl::Status JoinSideStream() override { return Note('j', of_join); }

 private:
  absl::Status Note(char what, absl::Status status) {
    log += what;
    return status;
  }
};

TEST_CASE(
    "a pending collective is awaited once: by Wait, when it goes, or when it is assigned to") {
  Recording comm;
  const Tensor x = Tensor::View(&comm, {0}, DType::kFloat32);
  {
    auto pending = comm.AllReduceAsync(x, x);
    REQUIRE_OK(pending);
    CHECK(comm.log == "a");
    REQUIRE_OK(pending->Wait());
    REQUIRE_OK(pending->Wait());
    CHECK(comm.log == "aj");
  }
  CHECK(comm.log == "aj");
  comm.log.clear();
  {
    PendingCollective first = *comm.AllReduceAsync(x, x);
    PendingCollective second = std::move(first);
    REQUIRE_OK(first.Wait());  // NOLINT: has nothing to wait for any more
    CHECK(comm.log == "a");
    PendingCollective third = *comm.BroadcastAsync(x, x, 0);
    CHECK(comm.log == "aa");
    second = std::move(third);
    CHECK(comm.log == "aaj");
  }
  CHECK(comm.log == "aajj");
  comm.log.clear();
  comm.of_join = absl::InternalError("lost");
  PendingCollective pending = *comm.AllReduceAsync(x, x);
  CHECK(Says(pending.Wait(), "lost"));
  CHECK(pending.Wait().ok());
  CHECK(comm.log == "aj");
}

TEST_CASE("a pending collective keeps its tensors alive, also those of the one assigned to it") {
  Recording comm;
  const auto memory = std::make_shared<int>(1);
  const auto own = [&] { return Tensor::Own(memory, {0}, DType::kFloat32, Device::Cpu()); };
  {
    const Tensor other;
    PendingCollective kept = *comm.AllReduceAsync(other, other);
    {
      PendingCollective pending = *comm.AllReduceAsync(own(), own());
      CHECK(memory.use_count() == 3);
      kept = std::move(pending);
    }
    CHECK(memory.use_count() == 3);
  }
  CHECK(memory.use_count() == 1);
}

TEST_CASE("an asynchronous call that fails says why, and the next call is not asynchronous") {
  const Tensor x;
  Recording failing;
  failing.of_call = absl::InternalError("no sum");
  CHECK(Says(failing.AllReduceAsync(x, x).status(), "no sum"));
  CHECK(Says(failing.AllReduce(x, x), "no sum"));
  CHECK(failing.log == "ax");
  Recording refused;
  CHECK(Says(refused.BroadcastAsync(x, x, 1).status(), "root 1 in a group of 1"));
  REQUIRE_OK(refused.Broadcast(x, x, 0));
  CHECK(refused.log == "rx");
  REQUIRE_OK(refused.AllReduceAsync(x, x, ReduceOp::kSum, {.max_multiprocessors = 4}));
  CHECK(refused.most == 4);
  REQUIRE_OK(refused.AllReduceAsync(x, x));
  CHECK(refused.most == 0);
  CHECK(Says(refused.AllReduceAsync(x, x, ReduceOp::kSum, {.max_multiprocessors = -2}).status(),
             "max_multiprocessors is -2; it must be at least 0"));
}

}  // namespace
}  // namespace lockstep
