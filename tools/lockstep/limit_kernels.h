// Bare kernels whose times are the limits that collectives are held against.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_KERNELS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lockstep::tools {

/// Copies `bytes`, a multiple of 16, from `in` to `out`, either of which may be a peer's memory.
cudaError_t LaunchCopy(const void* in, void* out, std::int64_t bytes, int num_blocks,
                       cudaStream_t stream);

/// Does nothing.
cudaError_t LaunchNothing(cudaStream_t stream);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_KERNELS_H_
