#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "lockstep/runtime/cuda/cuda.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/worker_state.h"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<void>> MakeStream(Device device) {
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return std::shared_ptr<void>(stream, [device](void* native) {
    const DeviceGuard guard_of_end(device);
    cudaStreamDestroy(static_cast<cudaStream_t>(native));
  });
}

absl::Status Synchronize(const Stream& stream) {
  const DeviceGuard guard(stream.device());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(stream.device(), cudaStreamSynchronize(NativeStream(stream)));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream& stream,
                                                   absl::FunctionRef<absl::Status()> work) {
  const Device device = stream.device();
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaStreamBeginCapture(NativeStream(stream), cudaStreamCaptureModeThreadLocal));
  absl::Status status = work();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(NativeStream(stream), &graph);
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, cudaError_t (*)(cudaGraph_t)> owner(
      graph, cudaGraphDestroy);
  LOCKSTEP_RETURN_IF_ERROR(status);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, ended);
  cudaGraphExec_t executable = nullptr;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaGraphInstantiate(&executable, graph, 0));
  // Uploaded now, so that the first replay is as quick as the others.
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaGraphUpload(executable, NativeStream(stream)));
  return std::shared_ptr<void>(executable, [device](void* pointer) {
    const DeviceGuard guard_of_end(device);
    cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(pointer));
  });
}

absl::Status LaunchGraph(const Stream& stream, void* executable) {
  const DeviceGuard guard(stream.device());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      stream.device(),
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), NativeStream(stream)));
  return absl::OkStatus();
}

}  // namespace lockstep::internal::cuda
