#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {
namespace {

__device__ std::uint32_t PatternAt(std::uint32_t seed, std::int64_t index) {
  const std::uint32_t mixed = (static_cast<std::uint32_t>(index) + seed) * 0x9E3779B9u;
  return mixed ^ (mixed >> 15);
}

__global__ void WritePatternKernel(std::uint32_t* to, std::int64_t words, std::uint32_t seed) {
  for (std::int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < words;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    to[i] = PatternAt(seed, i);
  }
}

__global__ void CountWrongKernel(const std::uint32_t* from, std::int64_t words, std::uint32_t seed,
                                 std::uint32_t* wrong) {
  for (std::int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < words;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    if (from[i] != PatternAt(seed, i)) atomicAdd(wrong, 1u);
  }
}

}  // namespace

cudaError_t LaunchWritePattern(std::uint32_t* to, std::int64_t words, std::uint32_t seed,
                               cudaStream_t stream) {
  return Launch(WritePatternKernel, 32, 256, stream, to, words, seed);
}

cudaError_t LaunchCountWrong(const std::uint32_t* from, std::int64_t words, std::uint32_t seed,
                             std::uint32_t* wrong, cudaStream_t stream) {
  return Launch(CountWrongKernel, 32, 256, stream, from, words, seed, wrong);
}

void LoadPatternKernels(KernelLoader& loader) {
  loader.Load(WritePatternKernel);
  loader.Load(CountWrongKernel);
}

}  // namespace lockstep::internal::cuda
