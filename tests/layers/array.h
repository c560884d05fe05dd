// Numbers on the host, to go into and come out of tensors of any floating type.
#ifndef LOCKSTEP_TESTS_LAYERS_ARRAY_H_
#define LOCKSTEP_TESTS_LAYERS_ARRAY_H_

#include <cstdint>
#include <vector>

#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

inline constexpr DType kFloatingTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                                           DType::kFloat64};

/// Numbers on the host, as doubles, which hold those of every floating type exactly.
struct Array {
  Shape shape;
  std::vector<double> values;

  static Array Constant(Shape shape, double value);
  /// In [-1, 1).
  static Array Uniform(Shape shape, std::uint64_t seed);
};

absl::StatusOr<Tensor> ToTensor(Worker& worker, const Array& array, DType dtype);
absl::StatusOr<Array> ToArray(Worker& worker, const Tensor& tensor);

/// Tells NaNs and zeros of either sign apart.
bool SameBits(const Array& a, const Array& b);
/// The largest difference between elements, relative to the largest of `expected` or 1, whichever
/// is more. Infinite for other shapes and for NaNs.
double Distance(const Array& actual, const Array& expected);
/// How far a sum of up to eight ranks' parts, each rounded to `dtype`, may be from the whole sum.
double Tolerance(DType dtype);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_LAYERS_ARRAY_H_
