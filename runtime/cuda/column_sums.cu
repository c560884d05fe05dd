#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/worker.h"

namespace lockstep::internal::cuda {
namespace {

// A block sums this many columns, each with this many threads.
constexpr int kColumns = 32;
constexpr int kLanes = 16;

// Sums of the rows of chunk blockIdx.y, [features] for each chunk. The order of additions depends
// on the shape alone.
template <typename T, typename Out>
__global__ void __launch_bounds__(kColumns* kLanes)
    ColumnSumsKernel(std::int64_t rows, std::int64_t rows_per_chunk, std::int64_t features,
                     const T* x, std::int64_t row_stride, bool accumulate, Out* out) {
  using V = Compute<T>;
  __shared__ V sums[kLanes][kColumns];
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const std::int64_t begin = std::int64_t{blockIdx.y} * rows_per_chunk;
  const std::int64_t end = min(begin + rows_per_chunk, rows);
  V sum = 0;
  if (column < features) {
#pragma unroll 4
    for (std::int64_t i = begin + threadIdx.y; i < end; i += kLanes)
      sum += Load(x[i * row_stride + column]);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= features) return;
  for (int lane = 1; lane < kLanes; ++lane) sum += sums[lane][threadIdx.x];
  Out& to = out[blockIdx.y * features + column];
  Store(to, accumulate ? static_cast<V>(Load(to)) + sum : sum);
}

// Enough chunks of rows to occupy a GPU where there are few columns, none of them short.
std::int64_t NumChunks(std::int64_t rows, std::int64_t column_blocks) {
  constexpr std::int64_t kEnoughBlocks = 512;
  constexpr std::int64_t kFewestRows = 4 * kLanes;
  const std::int64_t wanted = (kEnoughBlocks + column_blocks - 1) / column_blocks;
  return std::max<std::int64_t>(1, std::min(wanted, rows / kFewestRows));
}

template <typename T, typename Out>
cudaError_t LaunchColumnSums(cudaStream_t stream, std::int64_t rows, std::int64_t num_chunks,
                             std::int64_t features, const T* x, std::int64_t row_stride,
                             bool accumulate, Out* out) {
  const dim3 blocks(static_cast<unsigned>((features + kColumns - 1) / kColumns),
                    static_cast<unsigned>(num_chunks));
  return Launch(ColumnSumsKernel<T, Out>, blocks, dim3(kColumns, kLanes), stream, rows,
                (rows + num_chunks - 1) / num_chunks, features, x, row_stride, accumulate, out);
}

}  // namespace

void LoadColumnSumsKernels(KernelLoader& loader) {
  for (const DType dtype : kAllDTypes) {
    VisitFloating(dtype, [&]<typename T>() {
      loader.Load(ColumnSumsKernel<T, T>);
      loader.Load(ColumnSumsKernel<T, Compute<T>>);
      loader.Load(ColumnSumsKernel<Compute<T>, T>);
      loader.Load(ColumnSumsKernel<Compute<T>, Compute<T>>);
    });
  }
}

absl::Status ColumnSums(Worker& worker, const Tensor& x, const Tensor& out, bool accumulate) {
  const std::int64_t rows = x.extent(0);
  const std::int64_t features = x.extent(1);
  const std::int64_t num_chunks = NumChunks(rows, (features + kColumns - 1) / kColumns);
  const DType partial_type = x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  Tensor partials;
  if (num_chunks > 1) {
    LOCKSTEP_ASSIGN_OR_RETURN(partials, worker.Empty({num_chunks, features}, partial_type));
  }
  const DeviceGuard guard(worker.device());
  const cudaStream_t stream = StreamOf(worker);
  const auto launch = [&]<typename T, typename Out>() {
    const std::int64_t row_stride = x.strides()[0];
    if (num_chunks == 1) {
      return LaunchColumnSums(stream, rows, 1, features, Pointer<const T>(x), row_stride,
                              accumulate, Pointer<Out>(out));
    }
    using V = Compute<T>;
    const cudaError_t error =
        LaunchColumnSums(stream, rows, num_chunks, features, Pointer<const T>(x), row_stride,
                         /*accumulate=*/false, Pointer<V>(partials));
    if (error != cudaSuccess) return error;
    return LaunchColumnSums(stream, num_chunks, 1, features, Pointer<const V>(partials), features,
                            accumulate, Pointer<Out>(out));
  };
  const cudaError_t launched = VisitFloating(x.dtype(), [&]<typename T>() {
    return out.dtype() == x.dtype() ? launch.template operator()<T, T>()
                                    : launch.template operator()<T, Compute<T>>();
  });
  return ToStatus(launched, "ColumnSumsKernel", worker.device());
}

}  // namespace lockstep::internal::cuda
