// CUDA's errors as status, and the guard that switches devices.
#ifndef LOCKSTEP_RUNTIME_CUDA_ERROR_H_
#define LOCKSTEP_RUNTIME_CUDA_ERROR_H_

#include <cuda_runtime_api.h>

#include "lockstep/runtime/device.h"

/// A context of the driver's.
struct CUctx_st;

namespace lockstep::internal::cuda {

/// "cudaMalloc on cuda:1: cudaErrorMemoryAllocation (out of memory)". kResourceExhausted: memory.
/// kInternal, and "this process cannot use the device any more": an error that CUDA calls sticky.
/// kUnavailable: everything else.
absl::Status Error(cudaError_t error, absl::string_view call, Device device);

/// Whether CUDA leaves the device unusable for this process after `error`.
bool IsSticky(cudaError_t error);

/// Whether the runtime library has a context on the device. Makes none.
bool HasContext(Device device);

/// Lets the calling thread work on a device, in the context that the runtime library has there, and
/// puts back what was current before at the end of the scope: the same device, the same context of
/// the driver (a host's own, or none). Every function that calls CUDA on a thread which may be the
/// host's does so under a guard; with it, a first call makes no context on another device either.
/// Costs a load from the driver where the device is current already.
class DeviceGuard {
 public:
  explicit DeviceGuard(Device device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  CUctx_st* former_ = nullptr;
  bool changed_ = false;
};

/// While it lives, the calling thread may make calls that a graph's capture on it forbids: they
/// are not recorded.
class AnyCall {
 public:
  AnyCall() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~AnyCall() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  AnyCall(const AnyCall&) = delete;
  AnyCall& operator=(const AnyCall&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace lockstep::internal::cuda

/// Returns a status from the enclosing function unless the CUDA call succeeds.
///   LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaStreamSynchronize(stream));
#define LOCKSTEP_RETURN_IF_CUDA_ERROR(device, ...)                                           \
  do {                                                                                       \
    if (const cudaError_t lockstep_cuda_error = (__VA_ARGS__);                               \
        lockstep_cuda_error != cudaSuccess) {                                                \
      return ::lockstep::internal::cuda::Error(lockstep_cuda_error, #__VA_ARGS__, (device)); \
    }                                                                                        \
  } while (false)

#endif  // LOCKSTEP_RUNTIME_CUDA_ERROR_H_
