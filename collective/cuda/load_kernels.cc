#include "lockstep/collective/cuda/load_kernels.h"

namespace lockstep::internal::cuda {

cudaError_t LoadKernels() {
  for (cudaError_t (*load)() : {LoadReduceKernels, LoadSignalKernels, LoadPatternKernels,
                                LoadLinesKernels, LoadExchangeKernels, LoadPushKernels}) {
    if (const cudaError_t error = load(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace lockstep::internal::cuda
