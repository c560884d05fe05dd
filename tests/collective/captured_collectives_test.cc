// Collectives captured in CUDA graphs. On a machine without a GPU, only that a graph is refused.
#include "lockstep/runtime/graph.h"

#include "absl/time/clock.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/collective/transports.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::CreateRanks;
using testing::Guarded;
using testing::Says;
using testing::Transports;

// The transports whose collectives can be captured.
std::vector<testing::TransportCase> Capturing() {
  std::vector<testing::TransportCase> cases;
  for (auto& transport : Transports()) {
    const bool peer =
        transport.options.transport == TransportKind::kPeer || transport.max_ranks == 2;
    if (!peer || transport.devices[0].is_cpu()) continue;
    transport.options.timeout = absl::Seconds(10);
    cases.push_back(std::move(transport));
  }
  return cases;
}

TEST_CASE("a graph of a worker on the CPU is refused") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  CHECK(Says(Graph::Capture(*worker, [] { return absl::OkStatus(); }).status(), "on the CPU"));
}

// Small and large sums, a scatter and a gather, and math between them.
absl::Status Step(Worker& worker, Communicator& comm, const Tensor& x, Tensor& y) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor sum, worker.Empty(x.shape(), x.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, sum));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor positive, Relu(worker, sum));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, worker.Empty({x.size() / comm.world_size()}, x.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(positive, part));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part, sum));
  return comm.AllReduce(sum, y);
}

TEST_CASE("a captured sequence of collectives replays 1000 times with changing inputs", "[gpu]") {
  for (const auto& transport : Capturing()) {
    const int world_size = std::max(2, transport.min_ranks());
    auto ranks = CreateRanks(world_size, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      const std::int64_t count = 840 * 5;
      Guarded x(worker, DType::kFloat32, count);
      Guarded y(worker, DType::kFloat32, count);
      Tensor out = y.tensor();
      LOCKSTEP_ASSIGN_OR_RETURN(
          Graph graph, Graph::Capture(worker, [&] { return Step(worker, comm, x.tensor(), out); }));
      const double n = comm.world_size();
      for (int replay = 0; replay < 1000; ++replay) {
        for (std::int64_t i = 0; i < count; ++i) {
          x.Set(i, static_cast<double>((i + replay) % 17 - 8 + comm.rank()));
        }
        LOCKSTEP_RETURN_IF_ERROR(x.Upload());
        // Under compute-sanitizer a copy waits for all kernels of its device.
        LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
        LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
        // Every other time the same again, while a peer may be at work on the first.
        if (replay % 2 == 1) LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
        LOCKSTEP_RETURN_IF_ERROR(y.Download());
        for (std::int64_t i = 0; i < count; ++i) {
          const double sum = n * static_cast<double>((i + replay) % 17 - 8) + n * (n - 1) / 2;
          const double expected = n * n * std::max(sum, 0.0);
          if (y.Get(i) != expected) {
            // A group that has failed says more.
            LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
            return absl::InternalError(absl::StrCat("replay ", replay, ", element ", i, " is ",
                                                    y.Get(i), ", expected ", expected));
          }
        }
      }
      return comm.Synchronize();
    }));
  }
}

// Kernels that start early would fill a GPU that ranks share, and the late rank's would not fit.
TEST_CASE("a hundred captured sums leave room for a rank that replays late", "[gpu]") {
  for (auto& transport : Capturing()) {
    transport.options.tuning = {};
    for (const int world_size : {2, transport.max_ranks}) {
      for (const std::int64_t count : {1 << 10, 64 << 10, 5 << 19}) {
        auto ranks = CreateRanks(world_size, transport);
        REQUIRE_OK(ranks);
        INFO(transport.name << ", " << world_size << " ranks, " << count << " elements");
        REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
          Guarded x(worker, DType::kFloat32, count);
          for (std::int64_t i = 0; i < count; ++i) {
            x.Set(i, static_cast<double>(i % 17 + comm.rank()));
          }
          LOCKSTEP_RETURN_IF_ERROR(x.Upload());
          const auto average = [&] {
            return comm.AllReduce(x.tensor(), x.tensor(), ReduceOp::kAverage);
          };
          LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&] {
                                      absl::Status queued;
                                      for (int i = 0; i < 100; ++i) queued.Update(average());
                                      return queued;
                                    }));
          LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
          if (comm.rank() == 1) absl::SleepFor(absl::Milliseconds(50));
          LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
          LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
          LOCKSTEP_RETURN_IF_ERROR(x.Download());
          for (std::int64_t i = 0; i < count; ++i) {
            const double expected = static_cast<double>(i % 17) + (comm.world_size() - 1) / 2.0;
            if (x.Get(i) == expected) continue;
            return absl::InternalError(
                absl::StrCat("element ", i, " is ", x.Get(i), ", expected ", expected));
          }
          return comm.Barrier();
        }));
      }
    }
  }
}

TEST_CASE("F32: capture on some ranks alone is a mismatch on every rank, before anything runs",
          "[gpu][fault]") {
  for (const auto& transport : Capturing()) {
    const int world_size = std::max(2, transport.min_ranks());
    auto ranks = CreateRanks(world_size, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    const auto statuses = ranks->RunEach([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 100);
      LOCKSTEP_RETURN_IF_ERROR(x.Upload());
      const auto sum = [&] { return comm.AllReduce(x.tensor(), x.tensor()); };
      return worker.rank() == 0 ? Graph::Capture(worker, sum).status() : sum();
    });
    for (const absl::Status& status : statuses) CHECK(Says(status, "differ in capture of a graph"));
    REQUIRE_OK(ranks->barrier->Reset());
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 1);
      x.Set(0, 1);
      LOCKSTEP_RETURN_IF_ERROR(x.Upload());
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(x.Download());
      return testing::Expect(x.Get(0) == comm.world_size(), "the group does not work again");
    }));
  }
}

TEST_CASE("a rank that does not replay is found out on the device, and the group heals", "[gpu]") {
  for (auto transport : Capturing()) {
    transport.options.timeout = absl::Milliseconds(200);
    const int world_size = std::max(2, transport.min_ranks());
    auto ranks = CreateRanks(world_size, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    const auto statuses = ranks->RunEach([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 100);
      LOCKSTEP_RETURN_IF_ERROR(x.Upload());
      LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&] {
                                  return comm.AllReduce(x.tensor(), x.tensor());
                                }));
      if (worker.rank() != 1) LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
      return comm.Synchronize();
    });
    for (int rank = 0; rank < world_size; ++rank) {
      if (rank == 1) continue;
      CHECK(Says(statuses[rank],
                 "all_reduce (float32 x 100, sum), captured as #1: the stream of rank"));
      CHECK(Says(statuses[rank], "did not come to it within 0.2 s"));
    }
    REQUIRE_OK(ranks->barrier->Reset());
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded x(worker, DType::kFloat32, 1);
      x.Set(0, 1);
      LOCKSTEP_RETURN_IF_ERROR(x.Upload());
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(x.Download());
      return testing::Expect(x.Get(0) == comm.world_size(), "the group does not work again");
    }));
  }
}

}  // namespace
}  // namespace lockstep
