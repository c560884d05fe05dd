#include "lockstep/tests/harness/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "lockstep/runtime/elementwise.h"

namespace lockstep::testing {
namespace {

// The distance between neighbours near `value`, in a floating type; 1 for integers.
double UlpAt(double value, DType dtype) {
  int digits = 0;
  int lowest = 0;  // exponent of the least normal number
  switch (dtype) {
    case DType::kFloat64:
      digits = 53, lowest = -1022;
      break;
    case DType::kFloat32:
      digits = 24, lowest = -126;
      break;
    case DType::kFloat16:
      digits = 11, lowest = -14;
      break;
    case DType::kBFloat16:
      digits = 8, lowest = -126;
      break;
    default:
      return 1;
  }
  const int exponent = value == 0 ? lowest : std::max(std::ilogb(value), lowest);
  return std::ldexp(1.0, exponent - digits + 1);
}

// "[1, 3]" for a flat index.
std::string IndexText(const Shape& shape, std::int64_t flat) {
  Shape index = shape;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return ToString(index);
}

}  // namespace

absl::StatusOr<std::vector<double>> ToDoubles(Worker& worker, const Tensor& tensor) {
  std::vector<double> doubles(static_cast<std::size_t>(tensor.size()));
  std::vector<double> bytes(static_cast<std::size_t>(tensor.size_bytes()) / sizeof(double) + 1);
  Tensor contiguous = tensor;
  if (!tensor.is_contiguous()) {
    LOCKSTEP_ASSIGN_OR_RETURN(contiguous, worker.Empty(tensor.shape(), tensor.dtype()));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker, tensor, contiguous));
  }
  const Tensor host = Tensor::View(bytes.data(), tensor.shape(), tensor.dtype());
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, contiguous, host));
  VisitDType(tensor.dtype(), [&]<typename T>() {
    for (std::size_t i = 0; i < doubles.size(); ++i) {
      const T& element = host.data<T>()[i];
      if constexpr (std::is_arithmetic_v<T>) {
        doubles[i] = static_cast<double>(element);
      } else {
        doubles[i] = static_cast<double>(element.ToFloat());
      }
    }
  });
  return doubles;
}

absl::Status ExpectClose(Worker& worker, absl::string_view what, const Tensor& actual,
                         const Tensor& expected, double ulps) {
  if (actual.shape() != expected.shape() || actual.dtype() != expected.dtype()) {
    return absl::InternalError(
        absl::StrCat(what, ": is ", actual.ToString(), ", expected ", expected.ToString()));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> is, ToDoubles(worker, actual));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> should_be, ToDoubles(worker, expected));
  double largest = 0;
  for (const double value : should_be) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  const double ulp = UlpAt(largest, expected.dtype());
  std::size_t num_bad = 0;
  std::size_t first_bad = 0;
  double furthest = 0;
  for (std::size_t i = 0; i < is.size(); ++i) {
    const bool same = is[i] == should_be[i] || (std::isnan(is[i]) && std::isnan(should_be[i]));
    const double apart = same ? 0 : std::abs(is[i] - should_be[i]) / ulp;
    if (apart <= ulps) continue;  // false for NaN
    if (num_bad++ == 0) first_bad = i;
    furthest = std::max(furthest, std::isnan(apart) ? HUGE_VAL : apart);
  }
  if (num_bad == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      what, ": element ", IndexText(expected.shape(), static_cast<std::int64_t>(first_bad)), " is ",
      is[first_bad], ", expected ", should_be[first_bad], "; ", num_bad, " of ", is.size(),
      " elements differ by more than ", ulps, " ULP of the largest expected element (", largest,
      "), by up to ", furthest));
}

absl::Status ExpectGathersTo(Worker& worker, Communicator& comm, absl::string_view what,
                             const Tensor& part, int axis, const Tensor& expected, double ulps) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor whole, worker.Empty(expected.shape(), part.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part, whole, axis));
  return ExpectClose(worker, what, whole, expected, ulps);
}

}  // namespace lockstep::testing
