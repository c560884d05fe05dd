#include "lockstep/runtime/dtype.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace lockstep {

Float16 Float16::FromFloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return {static_cast<std::uint16_t>(sign | 0x7E00u)};
  // 65520 is half way between the largest finite value and the next power of two, and ties go to
  // the even one: infinity.
  if (magnitude >= 0x477FF000u) return {static_cast<std::uint16_t>(sign | 0x7C00u)};
  if (magnitude >= 0x38800000u) {
    // Normal: drop 13 bits of the mantissa, ties to even; a carry moves on into the exponent, as it
    // should.
    const std::uint32_t rounded = magnitude + 0x0FFFu + ((magnitude >> 13) & 1u);
    return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
  }
  // Subnormal: a multiple of 2^-24. In integers, since the adder follows the thread's mode.
  const std::uint32_t exponent = magnitude >> 23;
  if (exponent < 102) return {static_cast<std::uint16_t>(sign)};  // below half of it
  const std::uint32_t significand = (magnitude & 0x007FFFFFu) | 0x00800000u;
  const std::uint32_t shift = 126 - exponent;
  const std::uint32_t odd = (significand >> shift) & 1u;
  const std::uint32_t rounded = (significand + (1u << (shift - 1)) - 1 + odd) >> shift;
  return {static_cast<std::uint16_t>(sign | rounded)};
}

float Float16::ToFloat() const {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7FFFu;
  if (magnitude >= 0x7C00u)
    return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

BFloat16 BFloat16::FromFloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return {static_cast<std::uint16_t>((bits >> 16) | 0x0040u)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

float BFloat16::ToFloat() const {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::size_t SizeOf(DType dtype) {
  return VisitDType(dtype, []<typename T>() { return sizeof(T); });
}

absl::string_view Name(DType dtype) {
  constexpr absl::string_view kNames[] = {"float32", "float16", "bfloat16",       "float64",
                                          "int32",   "int64",   "no element type"};
  return kNames[std::min(static_cast<std::size_t>(dtype), std::size(kNames) - 1)];
}

bool IsFloating(DType dtype) { return dtype != DType::kInt32 && dtype != DType::kInt64; }

bool IsReducedPrecision(DType dtype) {
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  for (const DType dtype : kAllDTypes) {
    if (name == Name(dtype)) return dtype;
  }
  if (name == "float") return DType::kFloat32;
  if (name == "half" || name == "f16") return DType::kFloat16;
  if (name == "bf16") return DType::kBFloat16;
  if (name == "double") return DType::kFloat64;
  return absl::InvalidArgumentError(
      absl::StrCat("element type \"", name,
                   "\": there are float32, float16, bfloat16, float64, int32 and int64"));
}

}  // namespace lockstep
