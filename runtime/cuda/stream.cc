#include "lockstep/runtime/cuda/stream.h"

#include "lockstep/runtime/cuda/device.h"
#include "lockstep/runtime/cuda/driver.h"
#include "lockstep/runtime/cuda/handles.h"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<void>> MakeStream(Device device) {
  LOCKSTEP_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create(device));
  return std::move(stream).Share();
}

absl::Status CheckStream(const Stream& stream) {
  if (NativeStream(stream) == cudaStreamPerThread) {
    return absl::InvalidArgumentError(
        "stream: cudaStreamPerThread is another stream on each thread; a rank's must be one, made "
        "by cudaStreamCreate");
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckDevice(stream.device()));
  const Driver* const driver = GetDriver();
  // The default stream is that of whatever context is current.
  if (driver == nullptr || stream.native() == nullptr) return absl::OkStatus();
  const DeviceGuard guard(stream.device());
  CUcontext context = nullptr;
  const CUresult error = driver->stream_get_ctx(NativeStream(stream), &context);
  if (error != CUDA_SUCCESS) {
    return Error(static_cast<cudaError_t>(error), "cuStreamGetCtx", stream.device());
  }
  if (context == PrimaryContext(stream.device())) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "stream: it is of another context than the primary one of ", stream.device().ToString(),
      ", in which lockstep works as the CUDA runtime does; make it after "
      "cudaSetDevice(",
      stream.device().index(), ")"));
}

bool IsCapturing(const Stream& stream) {
  const DeviceGuard guard(stream.device());
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(NativeStream(stream), &status) == cudaSuccess &&
         status == cudaStreamCaptureStatusActive;
}

absl::Status Synchronize(const Stream& stream) {
  const DeviceGuard guard(stream.device());
  return LOCKSTEP_CUDA_STATUS(stream.device(), cudaStreamSynchronize(NativeStream(stream)));
}

absl::Status QueueZeros(const Stream& stream, void* memory, std::int64_t bytes) {
  const DeviceGuard guard(stream.device());
  return LOCKSTEP_CUDA_STATUS(
      stream.device(),
      cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), NativeStream(stream)));
}

}  // namespace lockstep::internal::cuda
