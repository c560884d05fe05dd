// Launching kernels so that an error is the launch's own.
#ifndef LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_
#define LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "lockstep/runtime/cuda/driver.h"
#include "lockstep/runtime/tensor.h"

namespace lockstep::internal::cuda {

/// Returns what this launch met with. The `<<<>>>` syntax leaves that to cudaGetLastError(), which
/// may return what a call of the host's left behind.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, cudaStream_t stream,
                   Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

/// Blocks of `num_threads` threads for `items` items, for kernels that stride by the whole grid: at
/// least one, and no more than `max_blocks`.
inline unsigned NumBlocks(std::int64_t items, int num_threads, std::int64_t max_blocks = 1 << 16) {
  const std::int64_t wanted = (items + num_threads - 1) / num_threads;
  return static_cast<unsigned>(std::clamp<std::int64_t>(wanted, 1, max_blocks));
}

/// Loads kernels on the current device, so that no launch has to.
class KernelLoader {
 public:
  /// `shared_bytes`: of a block, given at the launch.
  template <typename Kernel>
  void Load(Kernel* kernel, int shared_bytes = 0) {
    cudaFuncAttributes attributes;
    if (error_ == cudaSuccess) error_ = cudaFuncGetAttributes(&attributes, kernel);
    if (error_ != cudaSuccess || shared_bytes == 0) return;
    error_ = AllowSharedBytes(reinterpret_cast<const void*>(kernel), shared_bytes);
  }
  /// The first failure.
  cudaError_t error() const { return error_; }

 private:
  cudaError_t error_ = cudaSuccess;
};

/// The tensor's elements, whose type the caller knows.
template <typename T>
T* Pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw_data());
}

// Each file's kernels.
void LoadElementwiseKernels(KernelLoader& loader);
void LoadColumnSumsKernels(KernelLoader& loader);
void LoadCrossEntropyKernels(KernelLoader& loader);
void LoadRandomKernels(KernelLoader& loader);
void LoadUpdateKernels(KernelLoader& loader);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_
