// What a host's thread finds after every call: its device, its context, its errors. Without a GPU
// there is nothing to find.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <functional>
#include <thread>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/cuda/driver.h"
#include "lockstep/runtime/executor.h"
#include "lockstep/runtime/graph.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/gpus.h"

namespace lockstep {
namespace {

using testing::Gpus;
using testing::Says;

absl::Status Must(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(what);
}

// What a host's thread has: the driver's context, the device, and the last error.
struct Found {
  static Found Now() {
    Found found;
    internal::cuda::GetDriver()->ctx_get_current(&found.context);
    // Without a context, asking for the device makes none.
    cudaGetDevice(&found.device);
    found.error = cudaPeekAtLastError();
    return found;
  }
  bool operator==(const Found&) const = default;

  CUcontext context = nullptr;
  int device = -1;
  cudaError_t error = cudaSuccess;
};

// OK if the calling thread's context, device and last error are as they were found `before`.
absl::Status Kept(const Found& before, absl::string_view after) {
  const Found now = Found::Now();
  if (now == before) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(after, " changed what its thread has: context ",
                                          now.context == before.context ? "kept" : "other",
                                          ", device ", before.device, " now ", now.device,
                                          ", last error ", cudaGetErrorName(before.error), " now ",
                                          cudaGetErrorName(now.error)));
}

// What a host calls for one device, one call after the other, in a group of one: so one thread can
// be all of its ranks.
absl::Status CallsForOneRank(Worker& worker, const Found& before) {
  const auto kept = [&](absl::string_view after) { return Kept(before, after); };
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier,
                            CollectiveBarrier::Create(absl::MakeConstSpan(&worker.stream(), 1)));
  LOCKSTEP_RETURN_IF_ERROR(kept("CollectiveBarrier::Create"));
  Communicator& comm = barrier->communicator(0);
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({64, 64}, DType::kFloat32));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, worker.Empty({64, 64}, DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(kept("Worker::Zeros"));
  LOCKSTEP_RETURN_IF_ERROR(MatMul(worker, x, x, y));
  LOCKSTEP_RETURN_IF_ERROR(kept("MatMul"));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, y));
  LOCKSTEP_RETURN_IF_ERROR(kept("AllReduce"));
  LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective pending, comm.AllReduceAsync(x, x));
  LOCKSTEP_RETURN_IF_ERROR(kept("AllReduceAsync"));
  LOCKSTEP_RETURN_IF_ERROR(pending.Wait());
  LOCKSTEP_RETURN_IF_ERROR(kept("PendingCollective::Wait"));
  LOCKSTEP_ASSIGN_OR_RETURN(auto split, comm.Split(0, 0));
  LOCKSTEP_RETURN_IF_ERROR(kept("Split"));
  {
    LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&]() -> absl::Status {
                                LOCKSTEP_RETURN_IF_ERROR(kept("Graph::Capture's beginning"));
                                return comm.AllReduce(x, x);
                              }));
    LOCKSTEP_RETURN_IF_ERROR(kept("Graph::Capture"));
    LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
    LOCKSTEP_RETURN_IF_ERROR(kept("Graph::Launch"));
    LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
    LOCKSTEP_RETURN_IF_ERROR(kept("Synchronize"));
  }
  LOCKSTEP_RETURN_IF_ERROR(kept("~Graph"));
  LOCKSTEP_RETURN_IF_ERROR(worker.stream().Synchronize());
  barrier->Abort(absl::AbortedError("enough"));
  LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());
  LOCKSTEP_RETURN_IF_ERROR(kept("Reset"));
  split.reset();
  barrier.reset();
  LOCKSTEP_RETURN_IF_ERROR(kept("~CollectiveBarrier"));
  return absl::OkStatus();
}

// Everything that a host calls, one after the other; what is found after each must be as before.
absl::Status CallsEverything(const std::vector<Device>& devices) {
  const Found before = Found::Now();
  const auto kept = [&](absl::string_view after) { return Kept(before, after); };
  std::vector<Worker> workers;
  std::vector<Stream> streams;
  for (int rank = 0; rank < static_cast<int>(devices.size()); ++rank) {
    LOCKSTEP_ASSIGN_OR_RETURN(Worker worker,
                              Worker::Adopt(rank, static_cast<int>(devices.size()), devices[rank]));
    LOCKSTEP_RETURN_IF_ERROR(kept("Worker::Adopt"));
    streams.push_back(worker.stream());
    workers.push_back(std::move(worker));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.devices = devices}));
  LOCKSTEP_RETURN_IF_ERROR(kept("Executor::Create"));
  LOCKSTEP_ASSIGN_OR_RETURN(auto of_executor, CollectiveBarrier::Create(*executor));
  LOCKSTEP_RETURN_IF_ERROR(kept("CollectiveBarrier::Create from an executor"));
  LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker& worker) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({100}, DType::kFloat32));
    return of_executor->communicator(worker.rank()).AllReduce(x, x);
  }));
  LOCKSTEP_RETURN_IF_ERROR(kept("Executor::Run"));
  for (Worker& worker : workers) LOCKSTEP_RETURN_IF_ERROR(CallsForOneRank(worker, before));
  of_executor.reset();
  executor.reset();
  workers.clear();
  return kept("the end of all");
}

// In a thread of its own, which no CUDA call has touched before.
absl::Status OnFreshThread(const std::function<absl::Status()>& body) {
  absl::Status status;
  std::thread([&] { status = body(); }).join();
  return status;
}

TEST_CASE("a host's thread finds the device that it had set after every call", "[gpu]") {
  for (const Device device : Gpus()) {
    INFO(device.ToString());
    REQUIRE_OK(OnFreshThread([&] {
      cudaSetDevice(device.index());
      return CallsEverything(Gpus());
    }));
  }
}

TEST_CASE("a host's thread without a context has none after any call", "[gpu]") {
  if (Gpus().empty()) return;
  REQUIRE_OK(OnFreshThread([] {
    LOCKSTEP_RETURN_IF_ERROR(CallsEverything(Gpus()));
    return Must(Found::Now().context == nullptr, "there is a context now");
  }));
}

TEST_CASE("a host that works in a driver context of its own finds it after every call", "[gpu]") {
  for (const Device device : Gpus()) {
    INFO(device.ToString());
    REQUIRE_OK(OnFreshThread([&]() -> absl::Status {
      void* const library = dlopen("libcuda.so.1", RTLD_NOW);
      const auto create = reinterpret_cast<CUresult (*)(CUcontext*, unsigned, CUdevice)>(
          dlsym(library, "cuCtxCreate_v2"));
      const auto destroy =
          reinterpret_cast<CUresult (*)(CUcontext)>(dlsym(library, "cuCtxDestroy_v2"));
      CUcontext own = nullptr;
      LOCKSTEP_RETURN_IF_ERROR(
          Must(create(&own, 0, device.index()) == CUDA_SUCCESS, "there is no context to be had"));
      const absl::Status status = CallsEverything(Gpus());
      const bool kept = Found::Now().context == own;
      // lockstep cannot work on a stream of that context.
      cudaStream_t stream = nullptr;
      cudaStreamCreate(&stream);
      const absl::Status adopted = Worker::Adopt(0, 1, device, Stream(device, stream)).status();
      cudaStreamDestroy(stream);
      destroy(own);
      LOCKSTEP_RETURN_IF_ERROR(status);
      LOCKSTEP_RETURN_IF_ERROR(Must(kept, "the context is another"));
      return Must(absl::IsInvalidArgument(adopted) && Says(adopted, "of another context"),
                  absl::StrCat("a stream of another context: ", adopted.ToString()));
    }));
  }
}

TEST_CASE("an error that the host has not asked for yet is there after a group was made",
          "[gpu][cuda_error]") {
  if (Gpus().empty()) return;
  REQUIRE_OK(OnFreshThread([]() -> absl::Status {
    for (int turn = 0; turn < 2; ++turn) {
      cudaMemset(nullptr, 0, 1);
      LOCKSTEP_RETURN_IF_ERROR(CallsEverything(Gpus()));
      LOCKSTEP_RETURN_IF_ERROR(Must(cudaGetLastError() == cudaErrorInvalidValue,
                                    "the host's error is gone, or is another"));
    }
    return absl::OkStatus();
  }));
}

TEST_CASE("a stream that is another one on each thread is refused") {
  const Stream stream(Device::Cuda(0), cudaStreamPerThread);
  const absl::Status adopted = Worker::Adopt(0, 1, Device::Cuda(0), stream).status();
  CHECK(adopted.code() == absl::StatusCode::kInvalidArgument);
  CHECK(Says(adopted, "cudaStreamPerThread is another stream on each thread"));
}

}  // namespace
}  // namespace lockstep
