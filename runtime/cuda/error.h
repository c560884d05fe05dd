// CUDA's errors as status.
#ifndef LOCKSTEP_RUNTIME_CUDA_ERROR_H_
#define LOCKSTEP_RUNTIME_CUDA_ERROR_H_

#include <cuda_runtime_api.h>

#include "lockstep/runtime/device.h"

namespace lockstep::internal::cuda {

/// "cudaMalloc on cuda:1: cudaErrorMemoryAllocation (out of memory)". kResourceExhausted: memory.
/// kInternal, and "this process cannot use the device any more": an error that CUDA calls sticky.
/// kUnavailable: everything else.
absl::Status Error(cudaError_t error, absl::string_view call, Device device);

inline absl::Status ToStatus(cudaError_t error, absl::string_view call, Device device) {
  return error == cudaSuccess ? absl::OkStatus() : Error(error, call, device);
}

}  // namespace lockstep::internal::cuda

/// What became of a CUDA call, as a status.
///   return LOCKSTEP_CUDA_STATUS(device, cudaStreamSynchronize(stream));
#define LOCKSTEP_CUDA_STATUS(device, ...) \
  ::lockstep::internal::cuda::ToStatus((__VA_ARGS__), #__VA_ARGS__, (device))

/// Returns a status from the enclosing function unless the CUDA call succeeds.
///   LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaStreamSynchronize(stream));
#define LOCKSTEP_RETURN_IF_CUDA_ERROR(device, ...) \
  LOCKSTEP_RETURN_IF_ERROR(                        \
      ::lockstep::internal::cuda::ToStatus((__VA_ARGS__), #__VA_ARGS__, (device)))

#endif  // LOCKSTEP_RUNTIME_CUDA_ERROR_H_
