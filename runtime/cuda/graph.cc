#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream& stream,
                                                   absl::FunctionRef<absl::Status()> work) {
  const Device device = stream.device();
  {
    const DeviceGuard guard_of_begin(device);
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaStreamBeginCapture(NativeStream(stream), cudaStreamCaptureModeThreadLocal));
  }
  // The host's: it finds the device and the context that are its own.
  absl::Status status = work();
  const DeviceGuard guard(device);
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(NativeStream(stream), &captured);
  const RecordedGraph graph(device, captured);
  if (!status.ok() && ended != cudaSuccess) cudaGetLastError();  // it came of the other
  LOCKSTEP_RETURN_IF_ERROR(status);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, ended);
  LOCKSTEP_ASSIGN_OR_RETURN(
      ExecutableGraph executable,
      ExecutableGraph::Make(device, "cudaGraphInstantiate", [&](cudaGraphExec_t* made) {
        return cudaGraphInstantiate(made, graph.get(), 0);
      }));
  // Uploaded now, so that the first replay is as quick as the others.
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaGraphUpload(executable.get(), NativeStream(stream)));
  return std::move(executable).Share();
}

absl::Status LaunchGraph(const Stream& stream, void* executable) {
  const DeviceGuard guard(stream.device());
  return LOCKSTEP_CUDA_STATUS(
      stream.device(),
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), NativeStream(stream)));
}

}  // namespace lockstep::internal::cuda
