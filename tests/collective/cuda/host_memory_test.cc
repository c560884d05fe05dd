// Memory of every kind that a host on GPUs hands over, and what a group takes for itself. Without a
// GPU there is nothing to hand over.
#include <cuda_runtime_api.h>

#include <functional>

#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/tests/collective/transports.h"

namespace lockstep {
namespace {

using testing::CreateRanks;
using testing::Gpus;
using testing::Ranks;
using testing::Says;
using testing::TransportCase;
using testing::Transports;

// Sizes that go in lines, in tiles, and in parts of either.
constexpr std::int64_t kCounts[] = {1, 100'000, 1'000'000, 16'000'000};

std::vector<TransportCase> OnGpus() {
  std::vector<TransportCase> cases = Transports();
  std::erase_if(cases, [](const TransportCase& each) { return each.devices[0].is_cpu(); });
  return cases;
}

absl::Status Must(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(what);
}

// Allocates `count` floats on the worker's device, or frees `back` unless it is null.
using Memory = std::function<void*(Worker&, std::int64_t count, void* back)>;

void* FromDefaultPool(Worker& worker, std::int64_t count, void* back) {
  const cudaStream_t stream = internal::cuda::NativeStream(worker.stream());
  if (back != nullptr) {
    cudaFreeAsync(back, stream);
    return nullptr;
  }
  cudaMallocAsync(&back, static_cast<std::size_t>(count) * sizeof(float), stream);
  return back;
}

void* FromMalloc(Worker&, std::int64_t count, void* back) {
  if (back != nullptr) {
    cudaFree(back);
    return nullptr;
  }
  cudaMalloc(&back, static_cast<std::size_t>(count) * sizeof(float));
  return back;
}

void* Managed(Worker&, std::int64_t count, void* back) {
  if (back != nullptr) {
    cudaFree(back);
    return nullptr;
  }
  cudaMallocManaged(&back, static_cast<std::size_t>(count) * sizeof(float));
  return back;
}

void* Pinned(Worker&, std::int64_t count, void* back) {
  if (back != nullptr) {
    cudaFreeHost(back);
    return nullptr;
  }
  cudaHostAlloc(&back, static_cast<std::size_t>(count) * sizeof(float), cudaHostAllocMapped);
  return back;
}

void* Pageable(Worker&, std::int64_t count, void* back) {
  delete[] static_cast<float*>(back);
  return back != nullptr ? nullptr : new float[count]();
}

// Sums zeros in `data`, in place or out of it.
absl::Status SumOf(Worker& worker, Communicator& comm, void* data, std::int64_t count,
                   bool in_place) {
  const Tensor x = Tensor::View(data, {count}, DType::kFloat32, worker.device());
  Tensor out = x;
  if (!in_place) {
    LOCKSTEP_ASSIGN_OR_RETURN(out, worker.Empty({count}, DType::kFloat32));
  }
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, out));
  return comm.Synchronize();
}

absl::Status Works(Ranks& ranks) {
  return ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const std::int64_t count : kCounts) {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({count}, DType::kFloat32));
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));
    }
    return comm.Synchronize();
  });
}

// Whether sums in such memory are refused: the same at every size, and the group goes on.
bool IsRefused(const TransportCase& transport, const Memory& memory) {
  auto ranks = CreateRanks(2, transport);
  REQUIRE_OK(ranks);
  int refused = 0;
  int tried = 0;
  for (const std::int64_t count : kCounts) {
    for (const bool in_place : {true, false}) {
      INFO(transport.name << ", " << count << " elements, in place " << in_place);
      const auto statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
        void* const data = memory(worker, count, nullptr);
        LOCKSTEP_RETURN_IF_ERROR(Must(data != nullptr, "there is no such memory"));
        const absl::Status status = SumOf(worker, comm, data, count, in_place);
        memory(worker, count, data);
        return status;
      });
      ++tried;
      if (!statuses[0].ok() || !statuses[1].ok()) {
        ++refused;
        INFO(statuses[0]);
        INFO(statuses[1]);
        CHECK((Says(statuses[0], "may not read and write the memory of in") ||
               Says(statuses[1], "may not read and write the memory of in")));
        REQUIRE_OK(ranks->barrier->Reset());
      }
    }
  }
  REQUIRE_OK(Works(*ranks));
  CHECK((refused == 0 || refused == tried));
  return refused > 0;
}

TEST_CASE("memory that a host hands over is good at every size, or refused at every size",
          "[gpu][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    INFO(transport.name);
    // Where peers touch it.
    const bool shared =
        transport.devices.size() > 1 && transport.options.transport != TransportKind::kStaged;
    CHECK(!IsRefused(transport, FromMalloc));
    CHECK(!IsRefused(transport, Managed));
    CHECK(!IsRefused(transport, Pinned));
    CHECK(IsRefused(transport, Pageable));
    CHECK(IsRefused(transport, FromDefaultPool) == shared);
  }
}

TEST_CASE("memory of a pool that gives every GPU access is good at every size",
          "[gpu][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    INFO(transport.name);
    for (const Device device : transport.devices) {
      cudaMemPool_t pool = nullptr;
      REQUIRE(cudaDeviceGetDefaultMemPool(&pool, device.index()) == cudaSuccess);
      for (const Device peer : transport.devices) {
        cudaMemAccessDesc access = {{cudaMemLocationTypeDevice, peer.index()},
                                    cudaMemAccessFlagsProtReadWrite};
        REQUIRE(cudaMemPoolSetAccess(pool, &access, 1) == cudaSuccess);
      }
    }
    CHECK(!IsRefused(transport, FromDefaultPool));
    for (const Device device : transport.devices) {
      cudaMemPool_t pool = nullptr;
      REQUIRE(cudaDeviceGetDefaultMemPool(&pool, device.index()) == cudaSuccess);
      for (const Device peer : transport.devices) {
        if (peer == device) continue;
        cudaMemAccessDesc access = {{cudaMemLocationTypeDevice, peer.index()},
                                    cudaMemAccessFlagsProtNone};
        REQUIRE(cudaMemPoolSetAccess(pool, &access, 1) == cudaSuccess);
      }
    }
  }
}

TEST_CASE("memory at an address that was good for another allocation is asked about anew",
          "[gpu][multi_gpu][cuda_error]") {
  for (const TransportCase& transport : OnGpus()) {
    if (transport.devices.size() < 2 || transport.options.transport == TransportKind::kStaged) {
      continue;
    }
    INFO(transport.name);
    auto ranks = CreateRanks(2, transport);
    REQUIRE_OK(ranks);
    for (int turn = 0; turn < 20; ++turn) {
      const bool good = turn % 2 == 0;
      const auto statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
        constexpr std::int64_t kCount = 1 << 20;
        const Memory memory = good ? FromMalloc : FromDefaultPool;
        void* const data = memory(worker, kCount, nullptr);
        const absl::Status status = SumOf(worker, comm, data, kCount, /*in_place=*/true);
        memory(worker, kCount, data);
        cudaMemPool_t pool = nullptr;
        cudaDeviceGetDefaultMemPool(&pool, worker.device().index());
        cudaStreamSynchronize(internal::cuda::NativeStream(worker.stream()));
        cudaMemPoolTrimTo(pool, 0);
        return status;
      });
      CHECK((statuses[0].ok() && statuses[1].ok()) == good);
      REQUIRE_OK(ranks->barrier->Reset());
    }
  }
}

TEST_CASE("a group takes at most 64 MiB of each GPU, and says how much", "[gpu][multi_gpu]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() < 2) return;
  constexpr int kGroups = 7;
  constexpr std::int64_t kMiB = 1 << 20;
  const std::vector<Device> devices = {gpus[0], gpus[1]};
  const auto free_bytes = [&] {
    std::vector<std::int64_t> all;
    for (const Device device : devices) {
      std::size_t free = 0;
      std::size_t total = 0;
      const internal::cuda::DeviceGuard guard(device);
      cudaMemGetInfo(&free, &total);
      all.push_back(static_cast<std::int64_t>(free));
    }
    return all;
  };
  // The first group makes the contexts and loads the kernels.
  auto first = Ranks::Create(2, {}, devices);
  REQUIRE_OK(first);
  const auto before = free_bytes();
  std::vector<Ranks> groups;
  for (int i = 0; i < kGroups; ++i) {
    auto ranks = Ranks::Create(2, {}, devices);
    REQUIRE_OK(ranks);
    groups.push_back(*std::move(ranks));
  }
  const auto after = free_bytes();
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    const std::int64_t taken = (before[rank] - after[rank]) / kGroups;
    const std::int64_t said = groups[0].barrier->device_bytes(static_cast<int>(rank));
    WARN("a group takes " << taken / kMiB << " MiB of " << devices[rank].ToString() << ", of which "
                          << said / kMiB << " are its buffers");
    CHECK(taken <= 64 * kMiB);
    CHECK(said > 0);
    CHECK(said <= taken);
    CHECK(groups[0].barrier->pinned_bytes(static_cast<int>(rank)) == 0);
  }
  CHECK(groups[0].barrier->device_bytes(-1) == 0);
  CHECK(groups[0].barrier->device_bytes(2) == 0);
}

}  // namespace
}  // namespace lockstep
