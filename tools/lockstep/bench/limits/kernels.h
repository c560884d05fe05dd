// Bare kernels whose times are the limits that collectives are held against.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_KERNELS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lockstep::tools {

/// Copies `bytes`, a multiple of 16, from `in` to `out`, either of which may be a peer's memory.
cudaError_t LaunchCopy(const void* in, void* out, std::int64_t bytes, int num_blocks,
                       cudaStream_t stream);

/// Does nothing.
cudaError_t LaunchNothing(cudaStream_t stream);

/// In which order eight numbers are added: ((0+1)+(2+3))+((4+5)+(6+7)), or from 0 to 7 one after
/// the other.
enum class SumOrder : unsigned char { kTree, kLeftToRight };

struct EightInputs {
  const void* at[8];
};

/// out = the sum of eight bfloat16 arrays of `bytes` bytes each, a multiple of 16, on one GPU; in
/// float32, rounded once. The two kernels differ in nothing else.
cudaError_t LaunchSumEight(const EightInputs& inputs, void* out, std::int64_t bytes, SumOrder order,
                           int num_blocks, cudaStream_t stream);

/// Writes a chain of indices into `words`: `num_hops` of them, a power of two, each `stride` words
/// from the next in memory, and all in one cycle that jumps about.
cudaError_t LaunchMakeChain(std::uint32_t* words, std::uint32_t num_hops, std::uint32_t stride,
                            cudaStream_t stream);

/// One thread follows a chain, which may be in a peer's memory, once around, one load after the
/// other, and writes where it came out to `end`.
cudaError_t LaunchFollowChain(const std::uint32_t* words, std::uint32_t num_hops,
                              std::uint32_t* end, cudaStream_t stream);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_KERNELS_H_
