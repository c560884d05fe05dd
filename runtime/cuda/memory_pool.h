// The CUDA side of runtime/memory_pool.h.
#ifndef LOCKSTEP_RUNTIME_CUDA_MEMORY_POOL_H_
#define LOCKSTEP_RUNTIME_CUDA_MEMORY_POOL_H_

#include "lockstep/runtime/memory_pool.h"

namespace lockstep::internal::cuda {

/// Memory for tensors used on `stream`.
absl::StatusOr<std::shared_ptr<MemoryPool>> MakeMemoryPool(const Stream& stream);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_MEMORY_POOL_H_
