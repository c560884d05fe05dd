#include "lockstep/tests/layers/array.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/random.h"

namespace lockstep::testing {
namespace {

std::size_t NumElements(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return static_cast<std::size_t>(count);
}

}  // namespace

Array Array::Constant(Shape shape, double value) {
  const std::size_t count = NumElements(shape);
  return {std::move(shape), std::vector<double>(count, value)};
}

Array Array::Uniform(Shape shape, std::uint64_t seed) {
  Array array = Constant(std::move(shape), 0.0);
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    array.values[i] = 2.0 * static_cast<double>(UniformAt(seed, i)) - 1.0;
  }
  return array;
}

absl::StatusOr<Tensor> ToTensor(Worker& worker, const Array& array, DType dtype) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, worker.Empty(array.shape, dtype));
  auto* data = const_cast<double*>(array.values.data());
  const Tensor view = Tensor::View(data, array.shape, DType::kFloat64);
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, view, tensor));
  return tensor;
}

absl::StatusOr<Array> ToArray(Worker& worker, const Tensor& tensor) {
  Array array = Array::Constant(tensor.shape(), 0.0);
  const Tensor view = Tensor::View(array.values.data(), tensor.shape(), DType::kFloat64);
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, tensor, view));
  return array;
}

bool SameBits(const Array& a, const Array& b) {
  if (a.shape != b.shape || a.values.size() != b.values.size()) return false;
  return a.values.empty() ||
         std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(double)) == 0;
}

double Distance(const Array& actual, const Array& expected) {
  if (actual.shape != expected.shape) return std::numeric_limits<double>::infinity();
  double scale = 1.0;
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    const double difference = std::abs(actual.values[i] - expected.values[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
    scale = std::max(scale, std::abs(expected.values[i]));
  }
  return worst / scale;
}

double Tolerance(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 1e-12;
    case DType::kBFloat16:
      return 8 * 0x1p-9;  // eight roundings of half a unit in the last place
    case DType::kFloat16:
      return 8 * 0x1p-12;
    default:
      return 1e-5;
  }
}

}  // namespace lockstep::testing
