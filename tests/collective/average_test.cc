// An average that fits its type is right, whatever the sum, on every vector unit.
#include "lockstep/collective/average.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/reduction.h"

namespace lockstep::internal {
namespace {

#define ALL_TYPES float, Float16, BFloat16, double, std::int32_t, std::int64_t
#define INTEGER_TYPES std::int32_t, std::int64_t
// Types whose sums may overflow the type they are computed in.
#define WIDE_FLOATING_TYPES float, BFloat16, double

constexpr std::size_t kRanks[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 62, 1000};
constexpr auto kAverage = ReduceOp::kAverage;

template <typename T>
T Largest() {
  if constexpr (std::is_same_v<T, Float16>) {
    return {0x7BFF};
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return {0x7F7F};
  } else {
    return std::numeric_limits<T>::max();
  }
}
template <typename T>
T Lowest() {
  if constexpr (sizeof(T) == 2) {
    return {static_cast<std::uint16_t>(Largest<T>().bits | 0x8000)};
  } else {
    return std::numeric_limits<T>::lowest();
  }
}

// Numbers of the largest magnitudes and either sign: about half of their sums overflow.
template <typename T>
Inputs<T> LargeInputs(std::size_t num_inputs, std::size_t count) {
  std::mt19937_64 random(num_inputs + count);
  Inputs<T> inputs(num_inputs, std::vector<T>(count));
  for (auto& input : inputs) {
    for (T& element : input) {
      const std::uint64_t bits = random();
      BitsOf<T> large = ToBits(bits % 2 == 0 ? Largest<T>() : Lowest<T>());
      large = static_cast<BitsOf<T>>(large ^ (bits >> 8 & (bits % 4 < 2 ? 0x7F : 3)));
      // And small ones, so that the others decide.
      element =
          bits % 16 < 3 ? Narrow<T>(static_cast<double>(bits % 1000)) : std::bit_cast<T>(large);
    }
  }
  return inputs;
}

TEMPLATE_TEST_CASE("The average of equal numbers is that number, up to the type's last", "",
                   ALL_TYPES) {
  ForEachTarget([] {
    for (const std::size_t n : kRanks) {
      // As 5 x / 5 may be another number than x, where 5 x is rounded.
      if (std::is_floating_point_v<TestType> && n != 3 && !std::has_single_bit(n)) continue;
      for (const TestType value : {Largest<TestType>(), Lowest<TestType>()}) {
        const std::size_t count = n > 100 ? 3 : 37;
        const Inputs<TestType> inputs(n, std::vector<TestType>(count, value));
        INFO(n << " ranks");
        REQUIRE(ToBits(Run(kAverage, inputs)[0]) == ToBits(inputs[0]));
      }
    }
  });
}

TEMPLATE_TEST_CASE("Averages of the largest numbers are right, for any number of ranks", "",
                   ALL_TYPES) {
  ForEachTarget([] {
    for (const std::size_t n : kRanks)
      Check(kAverage, LargeInputs<TestType>(n, n > 100 ? 41 : 700));
  });
}

TEMPLATE_TEST_CASE("Averages that overflow on their way are right in place, streamed and unaligned",
                   "", ALL_TYPES) {
  for (const std::size_t n : {2u, 3u, 8u, 11u}) {
    for (const std::size_t offset : {0u, 1u}) {
      for (const bool in_place : {false, true}) {
        Check(kAverage, LargeInputs<TestType>(n, 1100),
              {.num_outputs = n, .offset = offset, .streaming = true, .in_place = in_place});
      }
    }
  }
}

TEMPLATE_TEST_CASE("Whole numbers of any bits are averaged exactly and cut towards zero", "",
                   INTEGER_TYPES) {
  for (const std::size_t n : kRanks) Check(kAverage, RandomInputs<TestType>(n, 501));
  constexpr TestType kMax = std::numeric_limits<TestType>::max();
  constexpr TestType kLeast = std::numeric_limits<TestType>::min();
  CHECK(One<TestType>(kAverage, {kMax, kMax, kMax - 1}) == kMax - 1);
  CHECK(One<TestType>(kAverage, {kLeast, kLeast, kLeast + 1}) == kLeast + 1);
  CHECK(One<TestType>(kAverage, {kLeast, kMax}) == 0);
  // Remainders that add up to more than the number of ranks.
  CHECK(One<TestType>(kAverage, {8, 8, 8, 8, 8}) == 8);
  CHECK(One<TestType>(kAverage, {-9, -9, -9, -9, -8}) == -8);
}

TEST_CASE("A sum of whole numbers loses nothing, however large") {
  std::mt19937_64 random(7);
  for (const std::size_t n : kRanks) {
    for (int repeat = 0; repeat < 200; ++repeat) {
      ExactSum<std::int64_t> sum;
      Int128 expected = 0;
      for (std::size_t rank = 0; rank < n; ++rank) {
        // All magnitudes and both signs, often all of one sign.
        auto value = static_cast<std::int64_t>(random() >> (repeat % 64));
        if (repeat % 3 == 1) value = std::numeric_limits<std::int64_t>::min() + (value & 3);
        if (repeat % 3 == 2) value |= std::numeric_limits<std::int64_t>::max() >> 4;
        sum.Add(value);
        expected += value;
      }
      const auto world_size = static_cast<int>(n);
      REQUIRE(sum.Average(world_size) == static_cast<std::int64_t>(expected / world_size));
    }
  }
}

TEMPLATE_TEST_CASE("Infinities and NaN stay what they are beside an overflow", "",
                   WIDE_FLOATING_TYPES) {
  const TestType most = Largest<TestType>(), least = Lowest<TestType>();
  const TestType infinity = Narrow<TestType>(kInfinity), minus = Narrow<TestType>(-kInfinity);
  CHECK(ToBits(One<TestType>(kAverage, {most, most, infinity})) == ToBits(infinity));
  CHECK(ToBits(One<TestType>(kAverage, {least, least, infinity, most})) == ToBits(infinity));
  CHECK(ToBits(One<TestType>(kAverage, {most, most, minus, most})) == ToBits(minus));
  const auto nan = ToBits(Reference(kAverage, Inputs<TestType>{{Narrow<TestType>(kNan)}}))[0];
  CHECK(ToBits(One<TestType>(kAverage, {most, most, infinity, minus})) == nan);
  CHECK(ToBits(One<TestType>(kAverage, {most, most, Narrow<TestType>(kNan)})) == nan);
  // Halves that overflow in opposite directions.
  CHECK(ToBits(One<TestType>(kAverage, {most, most, least, least, Narrow<TestType>(5)})) ==
        ToBits(Narrow<TestType>(1)));
}

TEST_CASE("Rounding carries no average past the largest number") {
  constexpr double kMax = std::numeric_limits<double>::max();
  constexpr float kMaxFloat = std::numeric_limits<float>::max();
  for (const int world_size : {3, 5, 6, 7, 62}) {
    const auto scale = DownscaleFor<double>(world_size);
    // A sum that rounding has carried up by one step.
    CHECK(AverageOfDownscaled(std::nextafter(kMax * scale.divisor, HUGE_VAL), scale) == kMax);
    CHECK(AverageOfDownscaled(std::nextafter(-kMax * scale.divisor, -HUGE_VAL), scale) == -kMax);
    CHECK(AverageOfDownscaled(HUGE_VAL, scale) == HUGE_VAL);
    const auto narrow = DownscaleFor<float>(world_size);
    CHECK(AverageOfDownscaled(std::nextafter(kMaxFloat * narrow.divisor, HUGE_VALF), narrow) ==
          kMaxFloat);
  }
}

TEST_CASE("An overflow changes no other element of its block") {
  const float tiny = std::numeric_limits<float>::denorm_min();
  Inputs<float> inputs(3, std::vector<float>(600, 3 * tiny));
  for (auto& input : inputs) input[300] = std::numeric_limits<float>::max();
  inputs[1][301] = 5 * tiny;
  const auto result = Run(kAverage, inputs)[0];
  for (std::size_t i = 0; i < result.size(); ++i) {
    const float expected = i == 300   ? std::numeric_limits<float>::max()
                           : i == 301 ? 4 * tiny
                                      : 3 * tiny;
    REQUIRE(result[i] == expected);
  }
}

}  // namespace
}  // namespace lockstep::internal
