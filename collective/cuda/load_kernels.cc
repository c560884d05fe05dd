#include "lockstep/collective/cuda/kernels.h"

#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {

cudaError_t LoadKernels() {
  KernelLoader loader;
  for (const auto load : {LoadReduceKernels, LoadSignalKernels, LoadPatternKernels,
                          LoadLinesKernels, LoadExchangeKernels, LoadPushKernels}) {
    load(loader);
  }
  return loader.error();
}

}  // namespace lockstep::internal::cuda
