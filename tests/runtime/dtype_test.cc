#include "lockstep/runtime/dtype.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

// Value of a 16-bit float by its definition, in double.
double Decode(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

// Every finite neighbour pair (a, b) of the format: what lies below the middle goes to a, above it
// to b, and the middle to the one whose last bit is 0.
template <typename T>
int CountWrongRoundings(int exponent_bits, int mantissa_bits) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x7FFF; ++bits) {
    const auto low = static_cast<std::uint16_t>(bits);
    const double a = Decode(low, exponent_bits, mantissa_bits);
    double b = Decode(static_cast<std::uint16_t>(low + 1), exponent_bits, mantissa_bits);
    if (std::isnan(a) || std::isinf(a) || std::isnan(b)) continue;
    // Overflow begins half way to what would be the next value.
    if (std::isinf(b))
      b = a + (a - Decode(static_cast<std::uint16_t>(low - 1), exponent_bits, mantissa_bits));
    const auto middle = static_cast<float>((a + b) / 2);
    if (static_cast<double>(middle) != (a + b) / 2) continue;  // below float's own subnormals
    const std::uint16_t high = static_cast<std::uint16_t>(low + 1);
    const std::uint16_t even = (low & 1) == 0 ? low : high;
    for (const int sign : {0, 0x8000}) {
      const float s = sign != 0 ? -1.0f : 1.0f;
      wrong += T::FromFloat(s * middle).bits != (even | sign);
      wrong += T::FromFloat(s * std::nextafterf(middle, 0)).bits != (low | sign);
      wrong += T::FromFloat(s * std::nextafterf(middle, HUGE_VALF)).bits != (high | sign);
    }
  }
  return wrong;
}

template <typename T>
int CountWrongValues(int exponent_bits, int mantissa_bits) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const T element{static_cast<std::uint16_t>(bits)};
    const double expected = Decode(element.bits, exponent_bits, mantissa_bits);
    const float value = element.ToFloat();
    if (std::isnan(expected)) {
      wrong += !std::isnan(value) || !std::isnan(T::FromFloat(value).ToFloat());
    } else {
      wrong += static_cast<double>(value) != expected || T::FromFloat(value).bits != element.bits;
    }
  }
  return wrong;
}

TEST_CASE(
    "all 65536 values of the 16-bit types are what their definition says, and come back from float "
    "unchanged") {
  CHECK(CountWrongValues<Float16>(5, 10) == 0);
  CHECK(CountWrongValues<BFloat16>(8, 7) == 0);
}

TEST_CASE(
    "rounding to 16 bits goes to the nearest value, ties to the even one, between all neighbours") {
  CHECK(CountWrongRoundings<Float16>(5, 10) == 0);
  CHECK(CountWrongRoundings<BFloat16>(8, 7) == 0);
}

TEST_CASE("a NaN of any payload stays a NaN in 16 bits") {
  for (const std::uint32_t bits :
       {0x7F800001u, 0x7FC00000u, 0xFFFFFFFFu, 0x7F80FFFFu, 0xFF800001u}) {
    const float value = std::bit_cast<float>(bits);
    CHECK(std::isnan(Float16::FromFloat(value).ToFloat()));
    CHECK(std::isnan(BFloat16::FromFloat(value).ToFloat()));
  }
}

TEST_CASE("types have names that can be read back, and sizes") {
  const std::size_t sizes[] = {4, 2, 2, 8, 4, 8};
  for (std::size_t i = 0; i < std::size(kAllDTypes); ++i) {
    const auto parsed = ParseDType(Name(kAllDTypes[i]));
    REQUIRE_OK(parsed);
    CHECK(*parsed == kAllDTypes[i]);
    CHECK(SizeOf(kAllDTypes[i]) == sizes[i]);
  }
  CHECK(*ParseDType("bf16") == DType::kBFloat16);
  CHECK(*ParseDType("half") == DType::kFloat16);
  CHECK(*ParseDType("f16") == DType::kFloat16);
  CHECK(*ParseDType("float") == DType::kFloat32);
  CHECK(*ParseDType("double") == DType::kFloat64);
  CHECK_FALSE(ParseDType("").ok());
  CHECK(Says(ParseDType("float8").status(), "\"float8\": there are float32"));
}

TEST_CASE("types know whether they are floating, and whether their sums are taken in float32") {
  std::string floating, reduced;
  for (const DType dtype : kAllDTypes) {
    if (IsFloating(dtype)) floating += std::string(Name(dtype)) + " ";
    if (IsReducedPrecision(dtype)) reduced += std::string(Name(dtype)) + " ";
    CHECK(VisitDType(dtype, []<typename T>() { return DTypeOf<T>(); }) == dtype);
  }
  CHECK(floating == "float32 float16 bfloat16 float64 ");
  CHECK(reduced == "float16 bfloat16 ");
  CHECK(Name(static_cast<DType>(6)) == "no element type");
}

TEST_CASE("a NaN keeps its sign, and the upper bits of its payload in bfloat16") {
  CHECK(BFloat16::FromFloat(std::bit_cast<float>(0xFFA30000u)).bits == 0xFFE3);
  CHECK(BFloat16::FromFloat(std::bit_cast<float>(0x7F800001u)).bits == 0x7FC0);
  CHECK(Float16::FromFloat(std::bit_cast<float>(0xFF800001u)).bits == 0xFE00);
  CHECK(Float16::FromFloat(std::bit_cast<float>(0x7FC00000u)).bits == 0x7E00);
  CHECK(std::bit_cast<std::uint32_t>(Float16{0x7C01}.ToFloat()) == 0x7F802000u);
}

}  // namespace
}  // namespace lockstep
