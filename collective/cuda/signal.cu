#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/signals.cuh"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {
namespace {

// Thread t speaks with rank t.
__global__ void SignalKernel(const __grid_constant__ Peers peers) {
  Inbox* const mine = peers.inbox[peers.rank];
  const int peer = static_cast<int>(threadIdx.x);
  const std::uint64_t round = mine->signal_rounds + 1;
  if (peer < peers.num_ranks && peer != peers.rank) {
    ReleaseFlag(&peers.inbox[peer]->signals[peers.rank], round);
    AwaitFlag(&mine->signals[peer], round, peers.watch, peer);
  }
  __syncthreads();
  if (threadIdx.x == 0) mine->signal_rounds = round;
}

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

cudaError_t LaunchSignal(const Peers& peers, cudaStream_t stream) {
  return Launch(SignalKernel, 1, 32, stream, peers);
}

cudaError_t LaunchWritePattern(std::uint32_t* to, std::int64_t words, std::uint32_t seed,
                               cudaStream_t stream) {
  return Launch(WritePatternKernel, 32, 256, stream, to, words, seed);
}

cudaError_t LaunchCountWrong(const std::uint32_t* from, std::int64_t words, std::uint32_t seed,
                             std::uint32_t* wrong, cudaStream_t stream) {
  return Launch(CountWrongKernel, 32, 256, stream, from, words, seed, wrong);
}

cudaError_t LoadSignalKernels() {
  FirstError error;
  error.Load(SignalKernel);
  error.Load(WritePatternKernel);
  error.Load(CountWrongKernel);
  return error.get();
}

cudaError_t LoadKernels() {
  for (cudaError_t (*load)() : {LoadReduceKernels, LoadSignalKernels, LoadLinesKernels,
                                LoadExchangeKernels, LoadPushKernels}) {
    if (const cudaError_t error = load(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace lockstep::internal::cuda
