#include <cuda_runtime.h>

#include <cstdint>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/worker.h"

namespace lockstep::internal::cuda {
namespace {

constexpr int kThreads = 256;

// UniformAt() of runtime/random.h.
__device__ float UniformOnDevice(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return __fmul_rn(static_cast<float>(z >> 40), 0x1p-24f);
}

struct UniformBlock {
  std::uint64_t seed;
  float bound;
  std::int64_t first;  // index of the block's first element in the full matrix
  std::int64_t full_columns;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t row_stride;
  std::int64_t column_stride;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) UniformBlockKernel(UniformBlock block, T* out) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
       at < block.rows * block.columns; at += step) {
    const std::int64_t i = at / block.columns;
    const std::int64_t j = at - i * block.columns;
    const auto index = static_cast<std::uint64_t>(block.first + i * block.full_columns + j);
    // Rounded after each step, as on the CPU: ranks on different devices draw one matrix.
    const float uniform = __fmul_rn(2.0f, UniformOnDevice(block.seed, index));
    Store(out[i * block.row_stride + j * block.column_stride],
          __fmul_rn(block.bound, __fsub_rn(uniform, 1.0f)));
  }
}

}  // namespace

void LoadRandomKernels(KernelLoader& loader) {
  for (const DType dtype : kAllDTypes) {
    VisitFloating(dtype, [&]<typename T>() { loader.Load(UniformBlockKernel<T>); });
  }
}

absl::Status FillUniformBlock(Worker& worker, std::uint64_t seed, float bound,
                              std::int64_t first_row, std::int64_t first_column,
                              std::int64_t full_columns, const Tensor& out) {
  const UniformBlock block{.seed = seed,
                           .bound = bound,
                           .first = first_row * full_columns + first_column,
                           .full_columns = full_columns,
                           .rows = out.extent(0),
                           .columns = out.extent(1),
                           .row_stride = out.strides()[0],
                           .column_stride = out.strides()[1]};
  const DeviceGuard guard(worker.device());
  const cudaError_t launched = VisitFloating(out.dtype(), [&]<typename T>() {
    return Launch(UniformBlockKernel<T>, NumBlocks(out.size(), kThreads), kThreads,
                  StreamOf(worker), block, Pointer<T>(out));
  });
  return ToStatus(launched, "UniformBlockKernel", worker.device());
}

}  // namespace lockstep::internal::cuda
