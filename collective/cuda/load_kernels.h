// Loading the kernels that move data before anything waits for them.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_LOAD_KERNELS_H_
#define LOCKSTEP_COLLECTIVE_CUDA_LOAD_KERNELS_H_

#include <cuda_runtime_api.h>

namespace lockstep::internal::cuda {

/// Loads all kernels of this folder on the current device, so that no launch has to: loading one
/// waits for the device, and so for a peer that may be waiting for us.
cudaError_t LoadKernels();

// Each file's part of it.
cudaError_t LoadReduceKernels();
cudaError_t LoadSignalKernels();
cudaError_t LoadPatternKernels();
cudaError_t LoadLinesKernels();
cudaError_t LoadExchangeKernels();
cudaError_t LoadPushKernels();

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_LOAD_KERNELS_H_
