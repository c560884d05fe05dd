#include "lockstep/tests/harness/compare.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "lockstep/runtime/elementwise.h"

namespace lockstep::testing {
namespace {

// Of a tensor on a device that the worker can read.
absl::Status CheckReadable(const Tensor& tensor) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t bytes,
                            ContiguousBytes(tensor.shape(), tensor.dtype()));
  if (bytes == 0) return absl::OkStatus();
  if (tensor.raw_data() == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.ToString(), " has a null pointer; give it memory"));
  }
  if (reinterpret_cast<std::uintptr_t>(tensor.raw_data()) % SizeOf(tensor.dtype()) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.ToString(), " is misaligned; its address must be a multiple of ",
                     SizeOf(tensor.dtype()), " bytes"));
  }
  return absl::OkStatus();
}

template <typename T>
double ToDouble(T element) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<double>(element);
  } else {
    return static_cast<double>(element.ToFloat());
  }
}

// As many digits as tell it from its neighbours.
template <typename Number>
std::string Digits(Number number) {
  std::array<char, 40> text;
  return {text.data(), std::to_chars(text.begin(), text.end(), number).ptr};
}
template <typename T>
std::string ElementText(T element) {
  if constexpr (std::is_arithmetic_v<T>) {
    return Digits(element);
  } else {
    return Digits(element.ToFloat());
  }
}

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

// The unit of the distances, and how many of them are allowed.
struct Tolerance {
  double ulps;
  double ulp;
};

// Whether two elements are too far apart, and how far.
struct Distance {
  bool is_bad;
  double apart;
};
template <typename T>
Distance Between(T is, T should_be, Tolerance tolerance) {
  if constexpr (std::is_integral_v<T>) {
    // Without sign, where no difference overflows, and as integers, where none is rounded away.
    const auto a = static_cast<std::uint64_t>(std::max(is, should_be));
    const auto b = static_cast<std::uint64_t>(std::min(is, should_be));
    const std::uint64_t apart = a - b;
    const bool any_allowed = tolerance.ulps >= 0x1p64;
    return {!any_allowed && apart > static_cast<std::uint64_t>(tolerance.ulps),
            static_cast<double>(apart)};
  } else {
    const double a = ToDouble(is);
    const double b = ToDouble(should_be);
    if (a == b || (std::isnan(a) && std::isnan(b))) return {false, 0};
    const double apart = std::isnan(a - b) ? HUGE_VAL : std::abs(a - b);
    return {apart / tolerance.ulp > tolerance.ulps, apart};
  }
}

template <typename T>
absl::Status CompareElements(absl::string_view what, const Tensor& actual, const Tensor& expected,
                             double ulps) {
  const absl::Span<const T> is(actual.data<T>(), static_cast<std::size_t>(actual.size()));
  const absl::Span<const T> should_be(expected.data<T>(), is.size());
  double largest = 0;
  for (const T element : should_be) {
    const double value = std::abs(ToDouble(element));
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  const double ulp = UlpAt(largest, expected.dtype());
  std::size_t num_bad = 0;
  std::size_t first_bad = 0;
  double furthest = 0;
  for (std::size_t i = 0; i < is.size(); ++i) {
    const Distance distance = Between(is[i], should_be[i], {ulps, ulp});
    if (!distance.is_bad) continue;
    if (num_bad++ == 0) first_bad = i;
    furthest = std::max(furthest, distance.apart);
  }
  if (num_bad == 0) return absl::OkStatus();
  const std::string found = absl::StrCat(
      what, ": element ", IndexText(expected.shape(), static_cast<std::int64_t>(first_bad)), " is ",
      ElementText(is[first_bad]), ", expected ", ElementText(should_be[first_bad]), "; ", num_bad,
      " of ", is.size(), " elements differ");
  if (!IsFloating(expected.dtype())) {
    return absl::InternalError(
        absl::StrCat(found, " by more than ", ulps, ", by up to ", Digits(furthest)));
  }
  // A unit in the last place of 0 is no measure of anything.
  if (largest == 0) {
    return absl::InternalError(absl::StrCat(found, ", by up to ", furthest,
                                            ", where 0 is all that is expected of what is finite"));
  }
  return absl::InternalError(absl::StrCat(found, " by more than ", ulps,
                                          " ULP of the largest expected element (", largest,
                                          "), by up to ", furthest / ulp, ", which is ", furthest));
}

}  // namespace

absl::StatusOr<Tensor> ToHost(Worker& worker, const Tensor& tensor) {
  LOCKSTEP_RETURN_IF_ERROR(CheckReadable(tensor));
  return lockstep::internal::OutOfMemoryAsStatus([&]() -> absl::StatusOr<Tensor> {
    // Doubles are aligned for every type.
    const auto memory = std::make_shared<std::vector<double>>(
        static_cast<std::size_t>(tensor.size_bytes()) / sizeof(double) + 1);
    const Tensor host =
        Tensor::Own({memory, memory->data()}, tensor.shape(), tensor.dtype(), Device::Cpu());
    if (tensor.device().is_cpu() && !worker.device().is_cpu()) {
      LOCKSTEP_ASSIGN_OR_RETURN(Worker on_cpu, Worker::Adopt(0, 1, Device::Cpu()));
      LOCKSTEP_RETURN_IF_ERROR(Copy(on_cpu, tensor, host));
    } else {
      LOCKSTEP_RETURN_IF_ERROR(Copy(worker, tensor, host));
    }
    return host;
  });
}

absl::StatusOr<std::vector<double>> ToDoubles(Worker& worker, const Tensor& tensor) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor host, ToHost(worker, tensor));
  return lockstep::internal::OutOfMemoryAsStatus([&]() -> absl::StatusOr<std::vector<double>> {
    std::vector<double> doubles(static_cast<std::size_t>(host.size()));
    VisitDType(host.dtype(), [&]<typename T>() {
      std::transform(host.data<T>(), host.data<T>() + host.size(), doubles.begin(), ToDouble<T>);
    });
    return doubles;
  });
}

absl::Status ExpectClose(Worker& worker, absl::string_view what, const Tensor& actual,
                         const Tensor& expected, double ulps) {
  if (!(ulps >= 0) || std::isinf(ulps)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", ulps, " ULP allowed; it must be a finite number, and at least 0"));
  }
  if (actual.shape() != expected.shape() || actual.dtype() != expected.dtype()) {
    return absl::InternalError(
        absl::StrCat(what, ": is ", actual.ToString(), ", expected ", expected.ToString()));
  }
  const auto read = [&](absl::string_view which, const Tensor& tensor) -> absl::StatusOr<Tensor> {
    absl::StatusOr<Tensor> host = ToHost(worker, tensor);
    if (host.ok()) return host;
    return absl::Status(host.status().code(),
                        absl::StrCat(what, ": ", which, ": ", host.status().message()));
  };
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor is, read("actual", actual));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor should_be, read("expected", expected));
  return VisitDType(is.dtype(),
                    [&]<typename T>() { return CompareElements<T>(what, is, should_be, ulps); });
}

absl::Status ExpectGathersTo(Worker& worker, Communicator& comm, absl::string_view what,
                             const Tensor& part, int axis, const Tensor& expected, double ulps) {
  // Whatever is wrong here, the collective is called with it: it tells the other ranks.
  Tensor in = part;
  if (!part.is_contiguous() && part.device() == worker.device() && CheckReadable(part).ok()) {
    LOCKSTEP_ASSIGN_OR_RETURN(in, worker.Empty(part.shape(), part.dtype()));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker, part, in));
  }
  const absl::StatusOr<Tensor> made = worker.Empty(expected.shape(), part.dtype());
  const Tensor whole =
      made.ok() ? *made : Tensor::View(nullptr, expected.shape(), part.dtype(), worker.device());
  if (const absl::Status status = comm.AllGather(in, whole, axis); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(what, ": parts such as ", part.ToString(),
                                                    " joined along axis ", axis, " to ",
                                                    whole.ToString(), ": ", status.message()));
  }
  return ExpectClose(worker, what, whole, expected, ulps);
}

}  // namespace lockstep::testing
