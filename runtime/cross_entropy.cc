#include <cmath>
#include <vector>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep {
namespace {

using internal::CheckAlike;
using internal::CheckFloating;
using internal::CheckMemory;
using internal::Compute;
using internal::Load;
using internal::RefuseTensor;
using internal::Store;
using internal::VisitFloating;

constexpr absl::string_view kWhat = "softmax cross-entropy";

absl::Status Check(Worker& worker, const Tensor& logits, const Tensor& labels, const Tensor& grad) {
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, kWhat, "logits", logits));
  if (logits.num_axes() != 2)
    return RefuseTensor(kWhat, "logits", logits, "it must be [rows, classes]");
  if (labels.dtype() != DType::kInt32 || labels.shape() != Shape{logits.extent(0)} ||
      !labels.is_contiguous() || labels.device() != worker.device()) {
    return RefuseTensor(kWhat, "labels", labels,
                        absl::StrCat("for logits, ", logits.ToString(), ", it must be int32 [",
                                     logits.extent(0), "] and contiguous"));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckMemory(kWhat, "labels", labels));
  if (logits.size() == 0 && logits.extent(0) > 0)
    return RefuseTensor(kWhat, "logits", logits, "there must be a class");
  if (grad.size() == 0) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, kWhat, "grad", grad));
  return CheckAlike(kWhat, "logits", logits, "grad", grad);
}

absl::Status CheckLabels(const Tensor& labels, std::int64_t classes) {
  for (std::int64_t row = 0; row < labels.size(); ++row) {
    const std::int32_t label = labels.data<std::int32_t>()[row];
    if (label >= 0 && label < classes) continue;
    return absl::InvalidArgumentError(absl::StrCat(kWhat, ": the label of row ", row, " is ", label,
                                                   "; it must be from 0 to ", classes - 1));
  }
  return absl::OkStatus();
}

// -log softmax(row)[label]; leaves softmax(row) in `softmax`.
template <typename T>
double RowLoss(const T* row, std::int32_t label, std::vector<Compute<T>>& softmax, bool& correct) {
  std::size_t largest = 0;
  for (std::size_t j = 1; j < softmax.size(); ++j) {
    if (Load(row[j]) > Load(row[largest])) largest = j;
  }
  correct = largest == static_cast<std::size_t>(label);
  const Compute<T> top = Load(row[largest]);
  double sum = 0;
  for (std::size_t j = 0; j < softmax.size(); ++j) {
    // Relative to the largest, so that nothing overflows.
    softmax[j] = std::exp(Load(row[j]) - top);
    sum += static_cast<double>(softmax[j]);
  }
  for (auto& value : softmax) value = static_cast<Compute<T>>(static_cast<double>(value) / sum);
  return std::log(sum) - static_cast<double>(Load(row[label]) - top);
}

}  // namespace

absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker& worker, const Tensor& logits,
                                                       const Tensor& labels, const Tensor& grad) {
  LOCKSTEP_RETURN_IF_ERROR(Check(worker, logits, labels, grad));
  const std::int64_t rows = logits.extent(0);
  CrossEntropyResult result{.loss = 0, .num_correct = 0};
  if (rows == 0) return result;
  if (!worker.device().is_cpu())
    return internal::cuda::SoftmaxCrossEntropy(worker, logits, labels, grad);
  LOCKSTEP_RETURN_IF_ERROR(CheckLabels(labels, logits.extent(1)));
  VisitFloating(logits.dtype(), [&]<typename T>() {
    std::vector<Compute<T>> softmax(static_cast<std::size_t>(logits.extent(1)));
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int32_t label = labels.data<std::int32_t>()[i];
      bool correct = false;
      result.loss += RowLoss(logits.data<T>() + i * logits.strides()[0], label, softmax, correct) /
                     static_cast<double>(rows);
      result.num_correct += correct;
      if (grad.size() == 0) continue;
      T* const to = grad.data<T>() + i * grad.strides()[0];
      for (std::size_t j = 0; j < softmax.size(); ++j) {
        const Compute<T> one_hot = j == static_cast<std::size_t>(label) ? 1 : 0;
        Store(to[j], (softmax[j] - one_hot) / static_cast<Compute<T>>(rows));
      }
    }
  });
  return result;
}

}  // namespace lockstep
