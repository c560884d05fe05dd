// What goes wrong on GPUs: memory that runs out, that peers may not use, links that lose data,
// kernels that wait in vain, errors that CUDA does not recover from. Without a GPU there is nothing
// to go wrong.
#include <cuda_runtime_api.h>

#include <chrono>
#include <thread>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/local_communicator.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/graph.h"
#include "lockstep/tests/collective/faults/faults.h"
#include "lockstep/tests/collective/transports.h"

namespace lockstep {
namespace {

using testing::Code;
using testing::CreateRanks;
using testing::Expect;
using testing::ExpectStatus;
using testing::Gpus;
using testing::Guarded;
using testing::Ranks;
using testing::Says;
using testing::TransportCase;
using testing::Transports;

// Longer than any test may last.
constexpr auto kNever = absl::Seconds(600);

std::vector<TransportCase> OnGpus() {
  std::vector<TransportCase> cases = Transports();
  std::erase_if(cases,
                [](const TransportCase& transport) { return transport.devices[0].is_cpu(); });
  for (TransportCase& transport : cases) transport.options.timeout = kNever;
  return cases;
}
bool IsPeer(const TransportCase& transport) {
  return transport.options.transport == TransportKind::kPeer || transport.max_ranks == 2;
}

// Every rank finds the sum of `count` ones.
absl::Status SumsOnes(Worker& worker, Communicator& comm, std::int64_t count) {
  Guarded x(worker, DType::kFloat32, count);
  for (std::int64_t i = 0; i < count; ++i) x.Set(i, 1);
  LOCKSTEP_RETURN_IF_ERROR(x.Upload());
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor()));
  LOCKSTEP_RETURN_IF_ERROR(x.Download());
  for (std::int64_t i = 0; i < count; ++i) {
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(x.Get(i) == comm.world_size(), absl::StrCat("a sum of ones is ", x.Get(i))));
  }
  return comm.Synchronize();
}

// Small and large, on the way of every algorithm.
absl::Status WorksOnGpus(Ranks& ranks) {
  return ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const std::int64_t count : {1, 1000, 100'000}) {
      LOCKSTEP_RETURN_IF_ERROR(SumsOnes(worker, comm, count));
    }
    return absl::OkStatus();
  });
}

// All memory of a GPU.
class Hoard {
 public:
  explicit Hoard(Device device) {
    cudaSetDevice(device.index());
    for (std::size_t size = std::size_t{1} << 34; size >= 1024; size /= 2) {
      void* block = nullptr;
      while (cudaMalloc(&block, size) == cudaSuccess) blocks_.push_back(block);
    }
    cudaGetLastError();
  }
  ~Hoard() {
    for (void* block : blocks_) cudaFree(block);
  }
  Hoard(const Hoard&) = delete;
  Hoard& operator=(const Hoard&) = delete;

 private:
  std::vector<void*> blocks_;
};

TEST_CASE(
    "F25: a GPU without memory fails the creation of a group, naming it, and a second one "
    "succeeds",
    "[gpu][fault][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    if (!IsPeer(transport)) continue;
    INFO(transport.name);
    auto executor = Executor::Create({.devices = transport.devices, .world_size = 2});
    REQUIRE_OK(executor);
    {
      const Hoard hoard(transport.devices.back());
      const auto barrier = CollectiveBarrier::Create(**executor, transport.options);
      CHECK(barrier.status().code() == Code::kResourceExhausted);
      CHECK(Says(barrier.status(), transport.devices.back().ToString()));
    }
    auto ranks = CreateRanks(2, transport);
    REQUIRE_OK(ranks);
    REQUIRE_OK(WorksOnGpus(*ranks));
  }
}

TEST_CASE("F26: an error that the host's own calls left behind is not taken for a collective's",
          "[gpu][fault][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    INFO(transport.name);
    auto ranks = CreateRanks(2, transport);
    REQUIRE_OK(ranks);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      for (const std::int64_t count : {1, 1000, 100'000}) {
        LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({count}, DType::kFloat32));
        cudaMemset(nullptr, 0, 1);
        LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));
        LOCKSTEP_RETURN_IF_ERROR(Expect(cudaGetLastError() == cudaErrorInvalidValue,
                                        "the host's error is gone, or is another"));
      }
      return comm.Synchronize();
    }));
  }
}

TEST_CASE("F26: memory that the GPUs may not use is refused on its rank, and the group heals",
          "[gpu][fault][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    if (transport.options.transport == TransportKind::kStaged) continue;  // asks for none
    INFO(transport.name);
    auto ranks = CreateRanks(2, transport);
    REQUIRE_OK(ranks);
    std::vector<float> host(4 << 20);
    const auto statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Empty({4 << 20}, DType::kFloat32));
      if (worker.rank() == 0) x = Tensor::View(host.data(), x.shape(), x.dtype(), worker.device());
      return comm.AllReduce(x, x);
    });
    CHECK(statuses[0].code() == Code::kInvalidArgument);
    CHECK(Says(statuses[0], "may not read and write the memory of in"));
    CHECK(Says(statuses[1], "rank 0 failed"));
    REQUIRE_OK(ranks->barrier->Reset());
    REQUIRE_OK(WorksOnGpus(*ranks));
  }
}

// Leaves the process without its GPUs, so it runs when it is asked for by name.
TEST_CASE("F27: after an error that CUDA does not recover from, every call fails and says so",
          "[.][gpu][fault][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    auto ranks = CreateRanks(2, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    const auto statuses = ranks->RunEach([](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({100}, DType::kFloat32));
      if (worker.rank() == 0) {
        internal::cuda::LaunchWritePattern(reinterpret_cast<std::uint32_t*>(16), 1000, 1,
                                           internal::cuda::StreamOf(worker));
      }
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));
      return comm.Synchronize();
    });
    CHECK(statuses[0].code() == Code::kInternal);
    CHECK(Says(statuses[0], "cudaErrorIllegalAddress"));
    CHECK(Says(statuses[0], "on cuda:0"));
    CHECK(Says(statuses[0], "cannot use the device any more"));
    CHECK(!statuses[1].ok());
    CHECK(ranks->barrier->Reset().code() == Code::kInternal);
    for (const absl::Status& later :
         ranks->RunEach([](Worker&, Communicator& comm) { return comm.Barrier(); })) {
      INFO(later);
      CHECK(!later.ok());
      CHECK(Says(later, "barrier: the group is poisoned until Reset(); first cause: "));
      CHECK(Says(later, "on cuda:0: cudaErrorIllegalAddress"));
    }
    return;  // one is enough for this process
  }
}

TEST_CASE("F28: a link that changes a byte sends the group through the host, which says why",
          "[gpu][multi_gpu][fault]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() < 2) return;
  std::vector<Worker> workers;
  std::vector<Stream> streams;
  for (int rank = 0; rank < 2; ++rank) {
    auto worker = Worker::Adopt(rank, 2, gpus[rank]);
    REQUIRE_OK(worker);
    streams.push_back(worker->stream());
    workers.push_back(*std::move(worker));
  }
  auto group = internal::LocalGroup::Create(
      streams, {0, 1}, nullptr,
      {.transport = {.timeout = std::chrono::seconds(60), .spoil_proof = true}});
  REQUIRE_OK(group);
  CHECK((*group)->transport().name() == "staged");
  CHECK((*group)->transport_reason() ==
        "from cuda:0 to cuda:1: kernel stores lost 1 of 16384 words");
  std::vector<absl::Status> statuses(2);
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      internal::LocalCommunicator comm(*group, static_cast<int>(rank));
      statuses[rank] = SumsOnes(workers[rank], comm, 100'000);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) REQUIRE_OK(status);
}

TEST_CASE("F29: kernels that wait in vain leave at once when the group is aborted, and it heals",
          "[gpu][fault]") {
  for (const TransportCase& transport : OnGpus()) {
    if (!IsPeer(transport)) continue;
    // A sum by lines, and one by tiles.
    for (const std::int64_t count : {100, 10 << 20}) {
      auto ranks = CreateRanks(2, transport);
      REQUIRE_OK(ranks);
      INFO(transport.name << ", " << count << " elements");
      std::chrono::steady_clock::time_point aborted;
      std::chrono::steady_clock::time_point left;
      const auto statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({count}, DType::kFloat32));
        LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&]() -> absl::Status {
                                    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));
                                    return comm.Broadcast(x, x, 0);
                                  }));
        LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
        if (worker.rank() == 0) {
          LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
          const absl::Status status = comm.Synchronize();
          left = std::chrono::steady_clock::now();
          return status;
        }
        // Late enough for rank 0's kernel to wait; it has to leave all the same if it does not.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        aborted = std::chrono::steady_clock::now();
        ranks->barrier->Abort(absl::AbortedError("enough"));
        return comm.Synchronize();
      });
      for (const absl::Status& status : statuses) {
        CHECK(status.code() == Code::kAborted);
        CHECK(Says(status, "enough"));
      }
      CHECK(left - aborted < testing::kSoon);
      const std::chrono::duration<double, std::milli> after = left - aborted;
      WARN(transport.name << ", " << count << " elements: left after " << after.count() << " ms");
      REQUIRE_OK(ranks->barrier->Reset());
      REQUIRE_OK(WorksOnGpus(*ranks));
    }
  }
}

}  // namespace
}  // namespace lockstep
