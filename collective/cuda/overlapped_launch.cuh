// Launching kernels that overlap with the end of the one before.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_OVERLAPPED_LAUNCH_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_OVERLAPPED_LAUNCH_CUH_

#include "lockstep/collective/cuda/plan.h"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {

/// The first thing that a kernel launched by LaunchOverlapped does: returns when all work queued
/// before is done. Until then nothing may be read or written.
__device__ __forceinline__ void AwaitWorkBefore() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel take its places on the device while this one is still at work, when all
/// blocks have called this or are done. Behind AwaitWorkBefore, so that one kernel at most waits
/// for its turn: more of them would fill the device, and a kernel for which a peer waits would find
/// no place. Devices before Hopper let nobody in early.
__device__ __forceinline__ void AdmitNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Reads a parameter now, rather than where it is used: parameters come from memory that no launch
/// finds in a cache, and ahead of AwaitWorkBefore they come while the kernel before is at work.
template <typename Parameter>
__device__ __forceinline__ void Touch(Parameter parameter) {
  asm volatile("" ::"l"(parameter) : "memory");
}

/// Whether the current device knows clusters of blocks, as Hopper and later do.
inline bool HasClusters() {
  int device = 0;
  int has = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&has, cudaDevAttrClusterLaunch, device) == cudaSuccess && has != 0;
}

/// A launch whose blocks may take their places on the device while the kernel before is still at
/// work, if that kernel allows it (programmatic dependent launch) and there is room for both.
template <typename Work>
cudaError_t LaunchOverlapped(void (*kernel)(Work), const LaunchShape& shape, cudaStream_t stream,
                             const Work& work) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned num_attributes = 0;
  if (shape.overlaps()) {
    cudaLaunchAttribute& overlap = attributes[num_attributes++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.in_pairs && HasClusters()) {
    cudaLaunchAttribute& cluster = attributes[num_attributes++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {2, 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.num_blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.num_threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = num_attributes;
  return cudaLaunchKernelEx(&config, kernel, work);
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_OVERLAPPED_LAUNCH_CUH_
