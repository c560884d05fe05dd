// Launching kernels so that an error is the launch's own.
#ifndef LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_
#define LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

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

/// Keeps the first failure of several calls.
class FirstError {
 public:
  void Note(cudaError_t error) {
    if (first_ == cudaSuccess) first_ = error;
  }
  /// Loads a kernel on the current device, so that no launch has to.
  template <typename Kernel>
  void Load(Kernel* kernel) {
    cudaFuncAttributes attributes;
    if (first_ == cudaSuccess) first_ = cudaFuncGetAttributes(&attributes, kernel);
  }
  cudaError_t get() const { return first_; }

 private:
  cudaError_t first_ = cudaSuccess;
};

/// The tensor's elements, whose type the caller knows.
template <typename T>
T* Pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw_data());
}

// Each loads its file's kernels on the current device.
cudaError_t LoadElementwiseKernels();
cudaError_t LoadColumnSumsKernels();
cudaError_t LoadCrossEntropyKernels();
cudaError_t LoadRandomKernels();
cudaError_t LoadUpdateKernels();

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_LAUNCH_CUH_
