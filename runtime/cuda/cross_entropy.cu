#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep::internal::cuda {
namespace {

// The largest of a row, the first of equals.
template <typename V>
struct Largest {
  V value;
  std::int64_t index;
};
template <typename V>
constexpr V kLowest = -std::numeric_limits<V>::infinity();
constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();

struct Larger {
  template <typename V>
  __device__ Largest<V> operator()(Largest<V> a, Largest<V> b) const {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
  }
};
struct Sum {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Smaller {
  __device__ std::int64_t operator()(std::int64_t a, std::int64_t b) const { return min(a, b); }
};

// Every thread's value combined in one tree; all threads get the result.
template <int kThreads, typename V, typename Combine>
__device__ V ReduceBlock(V mine, Combine combine) {
  static_assert((kThreads & (kThreads - 1)) == 0);
  __shared__ V values[kThreads];
  values[threadIdx.x] = mine;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half)
      values[threadIdx.x] = combine(values[threadIdx.x], values[threadIdx.x + half]);
  }
  __syncthreads();
  const V result = values[0];
  // The next reduction writes here.
  __syncthreads();
  return result;
}

struct CrossEntropyArguments {
  std::int64_t rows;
  std::int64_t classes;
  const std::int32_t* labels;
  std::int64_t logits_stride;
  std::int64_t grad_stride;
  double* losses;         // [rows]
  std::int32_t* correct;  // [rows], 0 or 1
};

__device__ __forceinline__ bool IsLabel(std::int32_t label, std::int64_t classes) {
  return label >= 0 && label < classes;
}

// One block for each row. `grad` is null to skip it, and may be `logits`.
template <int kThreads, typename T>
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(CrossEntropyArguments all, const T* logits, T* grad) {
  using V = Compute<T>;
  for (std::int64_t row = blockIdx.x; row < all.rows; row += gridDim.x) {
    const std::int32_t label = all.labels[row];
    // SummaryKernel reports it.
    if (!IsLabel(label, all.classes)) continue;
    const T* const from = logits + row * all.logits_stride;
    const V first = Load(from[0]);
    const V chosen = Load(from[label]);
    Largest<V> mine{kLowest<V>, kNone};
    for (std::int64_t j = threadIdx.x; j < all.classes; j += kThreads)
      mine = Larger()(mine, Largest<V>{Load(from[j]), j});
    Largest<V> top = ReduceBlock<kThreads>(mine, Larger());
    // Nothing is larger than a NaN that comes first, as on the CPU.
    if (first != first) top = {first, 0};
    double mine_sum = 0;
    for (std::int64_t j = threadIdx.x; j < all.classes; j += kThreads)
      mine_sum += static_cast<double>(std::exp(Load(from[j]) - top.value));
    const double sum = ReduceBlock<kThreads>(mine_sum, Sum());
    if (threadIdx.x == 0) {
      all.losses[row] = std::log(sum) - static_cast<double>(chosen - top.value);
      all.correct[row] = top.index == label ? 1 : 0;
    }
    if (grad == nullptr) continue;
    T* const to = grad + row * all.grad_stride;
    const double scale = 1 / sum;
    for (std::int64_t j = threadIdx.x; j < all.classes; j += kThreads) {
      const V weight = std::exp(Load(from[j]) - top.value);
      const V softmax = static_cast<V>(static_cast<double>(weight) * scale);
      Store(to[j], (softmax - (j == label ? V{1} : V{0})) / static_cast<V>(all.rows));
    }
  }
}

struct Summary {
  double loss;
  std::int64_t num_correct;
  std::int64_t bad_row;  // the first whose label is out of range, or kNone
  std::int64_t bad_label;
};

constexpr int kSummaryThreads = 512;

__global__ void __launch_bounds__(kSummaryThreads)
    SummaryKernel(CrossEntropyArguments all, Summary* summary) {
  double loss = 0;
  std::int64_t num_correct = 0;
  std::int64_t bad_row = kNone;
  for (std::int64_t row = threadIdx.x; row < all.rows; row += kSummaryThreads) {
    if (!IsLabel(all.labels[row], all.classes)) {
      bad_row = min(bad_row, row);
      continue;
    }
    loss += all.losses[row];
    num_correct += all.correct[row];
  }
  loss = ReduceBlock<kSummaryThreads>(loss, Sum());
  num_correct = ReduceBlock<kSummaryThreads>(num_correct, Sum());
  bad_row = ReduceBlock<kSummaryThreads>(bad_row, Smaller());
  if (threadIdx.x != 0) return;
  *summary = {loss / static_cast<double>(all.rows), num_correct, bad_row,
              bad_row == kNone ? 0 : all.labels[bad_row]};
}

// Few threads for short rows, so that many rows are under way at once.
template <typename Visitor>
auto VisitThreads(std::int64_t classes, Visitor&& visitor) {
  if (classes <= 256) return visitor.template operator()<32>();
  if (classes <= 4096) return visitor.template operator()<128>();
  return visitor.template operator()<512>();
}

}  // namespace

void LoadCrossEntropyKernels(KernelLoader& loader) {
  loader.Load(SummaryKernel);
  for (const DType dtype : kAllDTypes) {
    VisitFloating(dtype, [&]<typename T>() {
      for (const std::int64_t classes : {1, 1024, 1 << 16}) {
        VisitThreads(classes,
                     [&]<int kThreads>() { loader.Load(CrossEntropyKernel<kThreads, T>); });
      }
    });
  }
}

absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker& worker, const Tensor& logits,
                                                       const Tensor& labels, const Tensor& grad) {
  constexpr std::int64_t kMaxBlocks = 1 << 20;
  const Device device = worker.device();
  const std::int64_t rows = logits.extent(0);
  const std::int64_t classes = logits.extent(1);
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor losses, worker.Empty({rows}, DType::kFloat64));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor correct, worker.Empty({rows}, DType::kInt32));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor on_device,
                            worker.Empty({sizeof(Summary) / sizeof(std::int64_t)}, DType::kInt64));
  const CrossEntropyArguments all{.rows = rows,
                                  .classes = classes,
                                  .labels = Pointer<const std::int32_t>(labels),
                                  .logits_stride = logits.strides()[0],
                                  .grad_stride = grad.size() == 0 ? 0 : grad.strides()[0],
                                  .losses = Pointer<double>(losses),
                                  .correct = Pointer<std::int32_t>(correct)};
  const DeviceGuard guard(device);
  const cudaStream_t stream = StreamOf(worker);
  const auto blocks = static_cast<unsigned>(std::min(rows, kMaxBlocks));
  const cudaError_t launched = VisitFloating(logits.dtype(), [&]<typename T>() {
    return VisitThreads(classes, [&]<int kThreads>() {
      return Launch(CrossEntropyKernel<kThreads, T>, blocks, kThreads, stream, all,
                    Pointer<const T>(logits), grad.size() == 0 ? nullptr : Pointer<T>(grad));
    });
  });
  LOCKSTEP_RETURN_IF_ERROR(ToStatus(launched, "CrossEntropyKernel", device));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, Launch(SummaryKernel, 1, kSummaryThreads, stream, all, Pointer<Summary>(on_device)));
  Summary summary;
  // A copy to pageable memory is not to wait inside the driver (see CopyAcross).
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaStreamSynchronize(stream));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                cudaMemcpyAsync(&summary, on_device.raw_data(), sizeof(summary),
                                                cudaMemcpyDeviceToHost, stream));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaStreamSynchronize(stream));
  if (summary.bad_row != kNone) {
    return absl::InvalidArgumentError(absl::StrCat("softmax cross-entropy: the label of row ",
                                                   summary.bad_row, " is ", summary.bad_label,
                                                   "; it must be from 0 to ", classes - 1));
  }
  return CrossEntropyResult{.loss = summary.loss, .num_correct = summary.num_correct};
}

}  // namespace lockstep::internal::cuda
