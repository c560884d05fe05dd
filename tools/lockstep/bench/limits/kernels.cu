#include "lockstep/tools/lockstep/bench/limits/kernels.h"

#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::tools {
namespace {

using internal::cuda::Launch;

constexpr int kThreads = 512;
// 16-byte loads in flight per thread.
constexpr int kInFlight = 8;

__global__ void __launch_bounds__(kThreads)
    CopyKernel(const uint4* __restrict__ in, uint4* __restrict__ out, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (; at + (kInFlight - 1) * stride < count; at += kInFlight * stride) {
    uint4 held[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) held[i] = in[at + i * stride];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) out[at + i * stride] = held[i];
  }
  for (; at < count; at += stride) out[at] = in[at];
}

__global__ void NothingKernel() {}

// 16 bytes.
struct alignas(16) Eight {
  BFloat16 lanes[8];
};

template <SumOrder kOrder>
__device__ __forceinline__ float Sum(const float (&v)[8]) {
  if constexpr (kOrder == SumOrder::kTree) {
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
  } else {
    return ((((((v[0] + v[1]) + v[2]) + v[3]) + v[4]) + v[5]) + v[6]) + v[7];
  }
}

// Every thread has a load of each input in flight.
template <SumOrder kOrder>
__global__ void __launch_bounds__(kThreads)
    SumEightKernel(const __grid_constant__ EightInputs inputs, Eight* __restrict__ out,
                   std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; at < count;
       at += stride) {
    Eight held[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) held[i] = static_cast<const Eight*>(inputs.at[i])[at];
    Eight sums;
#pragma unroll
    for (int lane = 0; lane < 8; ++lane) {
      float values[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = internal::cuda::Load(held[i].lanes[lane]);
      internal::cuda::Store(sums.lanes[lane], Sum<kOrder>(values));
    }
    out[at] = sums;
  }
}

__global__ void MakeChainKernel(std::uint32_t* words, std::uint32_t num_hops,
                                std::uint32_t stride) {
  const std::uint32_t hop = blockIdx.x * blockDim.x + threadIdx.x;
  // A congruential generator modulo a power of two visits all (Hull and Dobell, 1962).
  if (hop < num_hops) words[hop * stride] = (hop * 1597 + 51749) % num_hops * stride;
}

// Volatile, or the first-level cache could answer.
__global__ void FollowChainKernel(const volatile std::uint32_t* words, std::uint32_t num_hops,
                                  std::uint32_t* end) {
  std::uint32_t at = 0;
  for (std::uint32_t hop = 0; hop < num_hops; ++hop) at = words[at];
  *end = at;
}

}  // namespace

cudaError_t LaunchCopy(const void* in, void* out, std::int64_t bytes, int num_blocks,
                       cudaStream_t stream) {
  return Launch(CopyKernel, num_blocks, kThreads, stream, static_cast<const uint4*>(in),
                static_cast<uint4*>(out), bytes / 16);
}

cudaError_t LaunchNothing(cudaStream_t stream) { return Launch(NothingKernel, 1, 32, stream); }

cudaError_t LaunchSumEight(const EightInputs& inputs, void* out, std::int64_t bytes, SumOrder order,
                           int num_blocks, cudaStream_t stream) {
  const auto kernel = order == SumOrder::kTree ? SumEightKernel<SumOrder::kTree>
                                               : SumEightKernel<SumOrder::kLeftToRight>;
  return Launch(kernel, num_blocks, kThreads, stream, inputs, static_cast<Eight*>(out), bytes / 16);
}

cudaError_t LaunchMakeChain(std::uint32_t* words, std::uint32_t num_hops, std::uint32_t stride,
                            cudaStream_t stream) {
  return Launch(MakeChainKernel, internal::cuda::NumBlocks(num_hops, kThreads), kThreads, stream,
                words, num_hops, stride);
}

cudaError_t LaunchFollowChain(const std::uint32_t* words, std::uint32_t num_hops,
                              std::uint32_t* end, cudaStream_t stream) {
  return Launch(FollowChainKernel, 1, 1, stream, words, num_hops, end);
}

}  // namespace lockstep::tools
