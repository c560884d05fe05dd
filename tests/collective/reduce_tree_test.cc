// The arithmetic of reductions: the order of the tree, the rounding, the special values, and that
// no vector unit, position or size changes a bit.
#include "lockstep/collective/reduce_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/reduction.h"

namespace lockstep::internal {
namespace {

TEST_CASE("Four ranks are summed as (0+1)+(2+3), seven as (0..3)+((4+5)+6)") {
  std::vector<float> v = {-1e8f, 1, 1, 1e8f};
  do {
    CHECK(One(ReduceOp::kSum, v) == (v[0] + v[1]) + (v[2] + v[3]));
    for (const float e : {1e8f, -1e8f, 1.0f}) {
      const std::vector<float> five = {v[0], v[1], v[2], v[3], e};
      CHECK(One(ReduceOp::kSum, five) == ((v[0] + v[1]) + (v[2] + v[3])) + e);
      const std::vector<float> seven = {v[0], v[1], v[2], v[3], e, 1, -e};
      CHECK(One(ReduceOp::kSum, seven) == ((v[0] + v[1]) + (v[2] + v[3])) + ((e + 1) + -e));
    }
  } while (std::next_permutation(v.begin(), v.end()));
}

TEST_CASE("Cancelling inputs are summed in the order of the tree for any number of ranks") {
  for (std::size_t n = 1; n <= 1000; n = n < 17 ? n + 1 : n * 2 - 1) {
    std::vector<float> pattern = {-1e8f, 1, 1, 1e8f};
    do {
      Inputs<float> inputs;
      for (std::size_t k = 0; k < n; ++k) inputs.push_back(std::vector<float>(37, pattern[k % 4]));
      Check(ReduceOp::kSum, inputs);
      Check(ReduceOp::kAverage, inputs);
    } while (std::next_permutation(pattern.begin(), pattern.end()));
  }
}

TEMPLATE_TEST_CASE("Every operation gives the reference's bits at every size", "", ALL_TYPES) {
  for (const ReduceOp op : kAllReduceOps) {
    for (const std::size_t n : Sizes{1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 33, 100}) {
      for (const std::size_t count : Sizes{0, 1, 2, 15, 31, 64, 131, 1000}) {
        Check(op, RandomInputs<TestType>(n, count), {.num_outputs = n % 3 == 0 ? n : 1});
      }
    }
  }
}

TEMPLATE_TEST_CASE("Alignment, streaming and working in place change no bit", "", ALL_TYPES) {
  for (const ReduceOp op : kAllReduceOps) {
    for (const std::size_t n : Sizes{1, 2, 3, 8, 11}) {
      for (const std::size_t count : Sizes{1, 17, 77, 300, 1200}) {
        const auto inputs = RandomInputs<TestType>(n, count);
        for (const std::size_t offset : Sizes{0, 1, 3}) {
          for (const bool streaming : {false, true}) {
            for (const bool in_place : {false, true}) {
              Check(op, inputs,
                    {.num_outputs = n,
                     .offset = offset,
                     .streaming = streaming,
                     .in_place = in_place});
            }
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("Every vector unit gives the same bits", "", ALL_TYPES) {
  ForEachTarget([] {
    for (const ReduceOp op : kAllReduceOps) {
      for (const std::size_t n : Sizes{1, 2, 3, 4, 5, 6, 7, 8, 12}) {
        for (const std::size_t count : Sizes{3, 150, 600}) {
          Check(op, RandomInputs<TestType>(n, count),
                {.num_outputs = 2, .offset = n % 2, .streaming = count == 600});
        }
      }
    }
  });
}

TEST_CASE("Outputs that are aligned differently may be streamed to") {
  const Inputs<float> inputs = RandomInputs<float>(2, 500);
  std::vector<float> a(520), b(520);
  const void* const in[] = {inputs[0].data(), inputs[1].data()};
  void* const out[] = {a.data() + 1, b.data() + 2};
  ReduceTree(DType::kFloat32, ReduceOp::kSum, in, out, 500, /*streaming=*/true);
  const auto expected = ToBits(Reference(ReduceOp::kSum, inputs));
  CHECK(ToBits(std::vector<float>(a.begin() + 1, a.begin() + 501)) == expected);
  CHECK(ToBits(std::vector<float>(b.begin() + 2, b.begin() + 502)) == expected);
}

TEMPLATE_TEST_CASE("Every 16-bit value survives a reduction over one rank on every vector unit", "",
                   Float16, BFloat16) {
  Inputs<TestType> inputs(1, std::vector<TestType>(65536));
  for (std::size_t i = 0; i < 65536; ++i) inputs[0][i] = {static_cast<std::uint16_t>(i)};
  ForEachTarget([&] {
    for (const ReduceOp op : kAllReduceOps) Check(op, inputs);
    const auto result = Run(ReduceOp::kSum, inputs)[0];
    for (std::size_t i = 0; i < 65536; ++i) {
      if (std::isnan(inputs[0][i].ToFloat())) continue;
      REQUIRE(result[i].bits == i);
    }
  });
}

TEMPLATE_TEST_CASE("16-bit sums are rounded once, ties to even, on every vector unit", "", Float16,
                   BFloat16) {
  // Each value plus half a unit, and a little less and more, in steps through all exponents.
  Inputs<TestType> inputs(3);
  for (std::uint32_t bits = 0; bits < 0x7C00; bits += 5) {
    for (const std::uint32_t distance : {0u, 0x0100u, 0x2400u, 0x2C00u, 0x3000u}) {
      inputs[0].push_back({static_cast<std::uint16_t>(bits)});
      inputs[1].push_back({static_cast<std::uint16_t>(bits > distance ? bits - distance : 1)});
      inputs[2].push_back({static_cast<std::uint16_t>(bits % 2 == 0 ? 1 : 0x8001)});
    }
  }
  ForEachTarget([&] {
    Check(ReduceOp::kSum, inputs);
    Check(ReduceOp::kAverage, inputs);
    Check(ReduceOp::kProduct, inputs);
  });
}

TEST_CASE("Ties go to even and overflow to infinity in 16 bits") {
  const auto half = [](float a, float b) {
    return One<Float16>(ReduceOp::kSum, {Float16::FromFloat(a), Float16::FromFloat(b)}).ToFloat();
  };
  CHECK(half(2048, 1) == 2048);
  CHECK(half(2050, 1) == 2052);
  CHECK(half(65504, 15) == 65504);
  CHECK(half(65504, 16) == kInfinity);
  CHECK(half(0x1p-24f, 0x1p-24f) == 0x1p-23f);
  const auto brain = [](float a, float b) {
    return One<BFloat16>(ReduceOp::kSum, {BFloat16::FromFloat(a), BFloat16::FromFloat(b)})
        .ToFloat();
  };
  CHECK(brain(256, 1) == 256);
  CHECK(brain(258, 1) == 260);
  CHECK(brain(0x1.FEp127f, 0x1p119f) == kInfinity);
  CHECK(brain(0x1p-133f, 0x1p-133f) == 0x1p-132f);
}

TEST_CASE("Any NaN becomes the canonical quiet one") {
  const float payload = std::bit_cast<float>(0xFFABCDEFu);
  for (const ReduceOp op : kAllReduceOps) {
    CHECK(ToBits(One<float>(op, {1, payload})) == 0x7FC00000u);
    CHECK(ToBits(One<float>(op, {payload, 1})) == 0x7FC00000u);
    CHECK(ToBits(One<float>(op, {payload})) == 0x7FC00000u);
    CHECK(ToBits(One<double>(op, {-std::numeric_limits<double>::quiet_NaN(), 1})) ==
          0x7FF8000000000000u);
    CHECK(One<Float16>(op, {{0x3C00}, {0xFC01}}).bits == 0x7E00);
    CHECK(One<BFloat16>(op, {{0x3F80}, {0xFFFF}}).bits == 0x7FC0);
  }
  CHECK(ToBits(One<float>(ReduceOp::kSum, {kInfinity, -kInfinity})) == 0x7FC00000u);
  CHECK(One<Float16>(ReduceOp::kSum, {{0x7C00}, {0xFC00}}).bits == 0x7E00);
  CHECK(ToBits(One<float>(ReduceOp::kProduct, {kInfinity, 0})) == 0x7FC00000u);
}

TEMPLATE_TEST_CASE("Minimum and maximum put -0 below +0", "", FLOATING_TYPES) {
  const TestType zero = Narrow<TestType>(0.0), minus_zero = Narrow<TestType>(-0.0);
  for (const auto& pair : {std::vector{zero, minus_zero}, std::vector{minus_zero, zero}}) {
    CHECK(ToBits(One(ReduceOp::kMin, pair)) == ToBits(minus_zero));
    CHECK(ToBits(One(ReduceOp::kMax, pair)) == ToBits(zero));
  }
  CHECK(ToBits(One<TestType>(ReduceOp::kSum, {minus_zero, minus_zero})) == ToBits(minus_zero));
}

TEST_CASE("Denormals are kept") {
  const float tiny = std::numeric_limits<float>::denorm_min();
  CHECK(One<float>(ReduceOp::kSum, {tiny, tiny}) == 2 * tiny);
  CHECK(One<float>(ReduceOp::kMin, {tiny, 1}) == tiny);
  CHECK(One<float>(ReduceOp::kAverage, {3 * tiny, 3 * tiny}) == 3 * tiny);
  CHECK(One<float>(ReduceOp::kAverage, {3 * tiny, 0}) == 2 * tiny);
  CHECK(One<float>(ReduceOp::kProduct, {0x1p-100f, 0x1p-49f}) == tiny);
}

TEST_CASE("Integers wrap around, and their average is cut towards zero") {
  constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();
  CHECK(One<std::int32_t>(ReduceOp::kSum, {kMax, 1}) == std::numeric_limits<std::int32_t>::min());
  CHECK(One<std::int32_t>(ReduceOp::kProduct, {65536, 65536}) == 0);
  CHECK(One<std::int32_t>(ReduceOp::kAverage, {-3, -4}) == -3);
  CHECK(One<std::int32_t>(ReduceOp::kAverage, {3, 4}) == 3);
  CHECK(One<std::int64_t>(ReduceOp::kProduct, {-3'000'000'000, 3}) == -9'000'000'000);
  CHECK(One<std::int64_t>(ReduceOp::kAverage, {-5, -5, -1}) == -3);
}

TEMPLATE_TEST_CASE("The first NaN is found wherever it stands", "", FLOATING_TYPES) {
  ForEachTarget([] {
    for (const std::size_t count : Sizes{1, 7, 64, 333}) {
      std::vector<TestType> values(count + 1, Narrow<TestType>(-kInfinity));
      const auto first = [&] {
        return FirstNan(DTypeOf<TestType>(), values.data(), static_cast<std::int64_t>(count));
      };
      values[count] = Narrow<TestType>(kNan);
      REQUIRE(first() == -1);
      for (std::size_t i = count; i-- > 0;) {
        values[i] = Narrow<TestType>(i % 2 == 0 ? kNan : -kNan);
        REQUIRE(first() == static_cast<std::int64_t>(i));
      }
    }
  });
}

TEST_CASE("Integers and empty data hold no NaN") {
  const std::vector<std::int32_t> ones(99, -1);
  CHECK(FirstNan(DType::kInt32, ones.data(), 99) == -1);
  CHECK(FirstNan(DType::kInt64, ones.data(), 49) == -1);
  CHECK(FirstNan(DType::kFloat32, ones.data(), 99) == 0);
  CHECK(FirstNan(DType::kFloat32, nullptr, 0) == -1);
}

}  // namespace
}  // namespace lockstep::internal
