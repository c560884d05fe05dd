// The element types that tensors hold, and the exact conversions of the two 16-bit ones.
#ifndef LOCKSTEP_RUNTIME_DTYPE_H_
#define LOCKSTEP_RUNTIME_DTYPE_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "lockstep/runtime/status.h"

namespace lockstep {

enum class DType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kFloat64, kInt32, kInt64 };

inline constexpr DType kAllDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                                       DType::kFloat64, DType::kInt32,   DType::kInt64};

/// IEEE 754 binary16: storage only. Arithmetic goes through float.
struct Float16 {
  std::uint16_t bits;

  /// Rounds to nearest, ties to even; overflow gives infinity; a NaN stays a NaN.
  static Float16 FromFloat(float value);
  float ToFloat() const;
};

/// The upper half of a float32: storage only. Arithmetic goes through float.
struct BFloat16 {
  std::uint16_t bits;

  /// Rounds to nearest, ties to even; a NaN stays a NaN.
  static BFloat16 FromFloat(float value);
  float ToFloat() const;
};

/// Size of one element in bytes.
std::size_t SizeOf(DType dtype);
/// "float32", "float16", "bfloat16", "float64", "int32", "int64"; "no element type" for a value
/// outside the enumeration, which every call refuses.
absl::string_view Name(DType dtype);
bool IsFloating(DType dtype);
/// Whether sums of `dtype` are taken in float32 and rounded once at the end: float16 and bfloat16.
bool IsReducedPrecision(DType dtype);

/// The inverse of Name(); also takes "float", "half", "bf16", "f16", "double". kInvalidArgument: no
/// such name.
absl::StatusOr<DType> ParseDType(absl::string_view name);

/// The DType of a C++ element type: `DTypeOf<float>() == DType::kFloat32`.
template <typename T>
constexpr DType DTypeOf();
template <>
constexpr DType DTypeOf<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType DTypeOf<Float16>() {
  return DType::kFloat16;
}
template <>
constexpr DType DTypeOf<BFloat16>() {
  return DType::kBFloat16;
}
template <>
constexpr DType DTypeOf<double>() {
  return DType::kFloat64;
}
template <>
constexpr DType DTypeOf<std::int32_t>() {
  return DType::kInt32;
}
template <>
constexpr DType DTypeOf<std::int64_t>() {
  return DType::kInt64;
}

/// Calls `visitor.template operator()<T>()` with the element type of `dtype` and returns what it
/// returns.
///
///   VisitDType(dtype, [&]<typename T>() { Fill(static_cast<T*>(data), count); });
template <typename Visitor>
decltype(auto) VisitDType(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::kFloat32:
      return visitor.template operator()<float>();
    case DType::kFloat16:
      return visitor.template operator()<Float16>();
    case DType::kBFloat16:
      return visitor.template operator()<BFloat16>();
    case DType::kFloat64:
      return visitor.template operator()<double>();
    case DType::kInt32:
      return visitor.template operator()<std::int32_t>();
    case DType::kInt64:
      break;
  }
  return visitor.template operator()<std::int64_t>();
}

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_DTYPE_H_
