#include "lockstep/runtime/update.h"

#include <cmath>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/math.h"

namespace lockstep {
namespace {

using internal::CheckAlike;
using internal::CheckFloating;
using internal::Load;
using internal::RefuseTensor;
using internal::Store;
using internal::VisitFloating;

// The state is all float32 or all float64, and contiguous; the value may be the master, or have 16
// bits.
absl::Status Check(Worker& worker, absl::string_view what,
                   std::initializer_list<const Tensor*> state, const Tensor& value) {
  const Tensor& first = **state.begin();
  if (first.dtype() != DType::kFloat32 && first.dtype() != DType::kFloat64) {
    return RefuseTensor(what, "gradient", first, "it must be float32 or float64");
  }
  for (const Tensor* tensor : state) {
    const absl::string_view name = tensor == &first ? "gradient" : "the state";
    LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, what, name, *tensor));
    LOCKSTEP_RETURN_IF_ERROR(CheckAlike(what, "gradient", first, name, *tensor));
    if (!tensor->is_contiguous()) return RefuseTensor(what, name, *tensor, "it must be contiguous");
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, what, "value", value));
  LOCKSTEP_RETURN_IF_ERROR(CheckAlike(what, "gradient", first, "value", value, /*any_dtype=*/true));
  return value.is_contiguous() ? absl::OkStatus()
                               : RefuseTensor(what, "value", value, "it must be contiguous");
}

// What `value` stands for: `master`, unless somebody has written another value since that was
// rounded to it. By bits, which tell a NaN from another and are equal where it is the same.
template <typename T, typename Value>
T MasterOf(T master, Value value) {
  if constexpr (std::is_arithmetic_v<Value>) {
    return master;
  } else {
    Value rounded;
    Store(rounded, master);
    return rounded.bits == value.bits ? master : static_cast<T>(Load(value));
  }
}

// Calls step(i, weight) for each element, which returns the new weight, and stores that as master
// and value.
template <typename Step>
void UpdateAll(const Tensor& master, const Tensor& value, Step step) {
  VisitFloating(master.dtype(), [&]<typename T>() {
    VisitFloating(value.dtype(), [&]<typename Value>() {
      if constexpr (std::is_arithmetic_v<T>) {
        T* const masters = master.data<T>();
        Value* const values = value.data<Value>();
        for (std::int64_t i = 0; i < master.size(); ++i) {
          const T updated = step(i, MasterOf(masters[i], values[i]));
          masters[i] = updated;
          Store(values[i], updated);
        }
      }
    });
  });
}

}  // namespace

absl::Status SgdUpdate(Worker& worker, const SgdOptions& options, const Tensor& gradient,
                       const Tensor& velocity, const Tensor& master, const Tensor& value) {
  LOCKSTEP_RETURN_IF_ERROR(Check(worker, "sgd update", {&gradient, &velocity, &master}, value));
  if (master.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu())
    return internal::cuda::SgdUpdate(worker, options, gradient, velocity, master, value);
  UpdateAll(master, value, [&]<typename T>(std::int64_t i, T weight) -> T {
    T& moving = velocity.data<T>()[i];
    moving = static_cast<T>(options.momentum) * moving + gradient.data<T>()[i] +
             static_cast<T>(options.weight_decay) * weight;
    return weight - static_cast<T>(options.learning_rate) * moving;
  });
  return absl::OkStatus();
}

absl::Status AdamWUpdate(Worker& worker, const AdamWOptions& options, std::int64_t step,
                         const Tensor& gradient, const Tensor& mean, const Tensor& mean_square,
                         const Tensor& master, const Tensor& value) {
  LOCKSTEP_RETURN_IF_ERROR(
      Check(worker, "adamw update", {&gradient, &mean, &mean_square, &master}, value));
  if (step < 1)
    return absl::InvalidArgumentError(
        absl::StrCat("adamw update: step ", step, "; steps count from 1"));
  if (master.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu()) {
    return internal::cuda::AdamWUpdate(worker, options, step, gradient, mean, mean_square, master,
                                       value);
  }
  internal::InDefaultFloatMode([&] {
    const double mean_weight = 1 / (1 - std::pow(options.beta1, static_cast<double>(step)));
    const double square_weight = 1 / (1 - std::pow(options.beta2, static_cast<double>(step)));
    UpdateAll(master, value, [&]<typename T>(std::int64_t i, T weight) -> T {
      const T g = gradient.data<T>()[i];
      T& m = mean.data<T>()[i];
      T& v = mean_square.data<T>()[i];
      m = static_cast<T>(options.beta1) * m + static_cast<T>(1 - options.beta1) * g;
      v = static_cast<T>(options.beta2) * v + static_cast<T>(1 - options.beta2) * g * g;
      const T slope =
          m * static_cast<T>(mean_weight) /
          (std::sqrt(v * static_cast<T>(square_weight)) + static_cast<T>(options.epsilon));
      return weight - static_cast<T>(options.learning_rate) *
                          (slope + static_cast<T>(options.weight_decay) * weight);
    });
  });
  return absl::OkStatus();
}

}  // namespace lockstep
