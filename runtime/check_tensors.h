// The checks and conversions that the math of one device shares.
#ifndef LOCKSTEP_RUNTIME_CHECK_TENSORS_H_
#define LOCKSTEP_RUNTIME_CHECK_TENSORS_H_

#include <initializer_list>
#include <type_traits>

#include "lockstep/runtime/float_mode.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::internal {

/// kInvalidArgument "<what>: x is float32 [2, 3] on cpu; <right>".
absl::Status RefuseTensor(absl::string_view what, absl::string_view name, const Tensor& tensor,
                          absl::string_view right);

/// OK if the elements can be touched: a shape and a type that can be, and no null pointer.
absl::Status CheckMemory(absl::string_view what, absl::string_view name, const Tensor& tensor);

/// The same, and it is of a floating type, on the worker's device, and its last axis has stride 1.
absl::Status CheckFloating(Worker& worker, absl::string_view what, absl::string_view name,
                           const Tensor& tensor);

/// OK if both have one shape and, unless `any_dtype`, one type.
absl::Status CheckAlike(absl::string_view what, absl::string_view name_a, const Tensor& a,
                        absl::string_view name_b, const Tensor& b, bool any_dtype = false);

/// The type in which T is computed: float32 for the 16-bit ones, else itself.
template <typename T>
using Compute = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

template <typename T>
Compute<T> Load(const T& element) {
  if constexpr (std::is_arithmetic_v<T>) {
    return element;
  } else {
    return element.ToFloat();
  }
}
template <typename T, typename V>
void Store(T& element, V value) {
  if constexpr (std::is_arithmetic_v<T>) {
    element = static_cast<T>(value);
  } else {
    element = T::FromFloat(static_cast<float>(value));
  }
}

/// Returns visitor<T>(), called in the default floating-point mode. For the floating types alone:
/// of others it returns what means nothing.
template <typename Visitor>
auto VisitFloating(DType dtype, Visitor&& visitor) {
  using Result = decltype(visitor.template operator()<float>());
  return InDefaultFloatMode([&] {
    return VisitDType(dtype, [&]<typename T>() -> Result {
      if constexpr (std::is_integral_v<T>) {
        return Result();
      } else {
        return visitor.template operator()<T>();
      }
    });
  });
}

/// Calls row(offset in a, offset in b, length) for each run along the last axis of two tensors of
/// one shape.
template <typename Row>
void ForEachRow(const Tensor& a, const Tensor& b, Row row) {
  if (a.size() == 0) return;
  if (a.is_contiguous() && b.is_contiguous())
    return row(std::int64_t{0}, std::int64_t{0}, a.size());
  const int axes = a.num_axes();
  const std::int64_t length = a.extent(-1);
  Shape at(static_cast<std::size_t>(axes), 0);
  for (std::int64_t done = 0; done < a.size(); done += length) {
    std::int64_t offset_a = 0;
    std::int64_t offset_b = 0;
    for (std::size_t axis = 0; axis + 1 < at.size(); ++axis) {
      offset_a += at[axis] * a.strides()[axis];
      offset_b += at[axis] * b.strides()[axis];
    }
    row(offset_a, offset_b, length);
    for (std::size_t axis = at.size() - 1; axis-- > 0;) {
      if (++at[axis] < a.shape()[axis]) break;
      at[axis] = 0;
    }
  }
}

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_CHECK_TENSORS_H_
