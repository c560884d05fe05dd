// The arithmetic of reductions: the order of the tree, the rounding, the special values, and that
// no vector unit, position or size changes a bit.
#include "lockstep/collective/reduce_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "hwy/highway.h"
#include "lockstep/tests/catch.h"

namespace lockstep::internal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;

template <typename T>
BitsOf<T> ToBits(T value) {
  return std::bit_cast<BitsOf<T>>(value);
}

template <typename T>
std::vector<BitsOf<T>> ToBits(const std::vector<T>& values) {
  std::vector<BitsOf<T>> bits;
  for (const T value : values) bits.push_back(ToBits(value));
  return bits;
}

// ---- The reference: one element at a time, in the type that the contract computes in.

template <typename T>
auto Widen(T value) {
  if constexpr (sizeof(T) == 2) {
    return value.ToFloat();
  } else {
    return value;
  }
}

template <typename T>
using Wide = decltype(Widen(T{}));

template <typename C>
C Extreme(bool min, C a, C b) {
  if (a != a || b != b) return std::numeric_limits<C>::quiet_NaN();
  if constexpr (std::is_floating_point_v<C>) {
    if (a == 0 && b == 0) return std::signbit(a) == min ? a : b;
  }
  return (a < b) == min ? a : b;
}

template <typename C>
C Combine(ReduceOp op, C a, C b) {
  if (op == ReduceOp::kMin || op == ReduceOp::kMax) return Extreme(op == ReduceOp::kMin, a, b);
  if constexpr (std::is_integral_v<C>) {
    using U = std::make_unsigned_t<C>;
    const auto x = static_cast<U>(a), y = static_cast<U>(b);
    return static_cast<C>(op == ReduceOp::kProduct ? x * y : x + y);
  } else {
    return op == ReduceOp::kProduct ? a * b : a + b;
  }
}

template <typename C>
C Tree(ReduceOp op, const std::vector<C>& leaves, std::size_t begin, std::size_t end) {
  if (end - begin == 1) return leaves[begin];
  std::size_t left = 1;
  while (2 * left < end - begin) left *= 2;
  return Combine(op, Tree(op, leaves, begin, begin + left), Tree(op, leaves, begin + left, end));
}

template <typename T>
T Expected(ReduceOp op, const std::vector<Wide<T>>& leaves) {
  using C = Wide<T>;
  C result = Tree(op, leaves, 0, leaves.size());
  if (op == ReduceOp::kAverage) result = result / static_cast<C>(leaves.size());
  if constexpr (sizeof(T) == 2) {
    if (result != result)
      return {std::is_same_v<T, Float16> ? std::uint16_t{0x7E00} : std::uint16_t{0x7FC0}};
    return T::FromFloat(result);
  } else {
    return result != result ? std::numeric_limits<T>::quiet_NaN() : result;
  }
}

// ---- Inputs, and runs.

template <typename T>
using Inputs = std::vector<std::vector<T>>;

template <typename T>
T Narrow(double value) {
  if constexpr (sizeof(T) == 2) {
    return T::FromFloat(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

// Half small numbers, half any bits at all: NaN with payloads, infinities, denormals, overflow.
template <typename T>
Inputs<T> RandomInputs(std::size_t num_inputs, std::size_t count) {
  std::mt19937_64 random(num_inputs * 1000003 + count);
  Inputs<T> inputs(num_inputs, std::vector<T>(count));
  for (auto& input : inputs) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t bits = random();
      const double small = static_cast<double>(static_cast<std::int64_t>(bits % 2001) - 1000) / 8;
      input[i] = i % 2 == 0 ? Narrow<T>(small) : std::bit_cast<T>(static_cast<BitsOf<T>>(bits));
    }
  }
  return inputs;
}

struct Layout {
  std::size_t num_outputs = 1;
  /// Elements between an aligned address and the data; outputs by one more than inputs.
  std::size_t offset = 0;
  bool streaming = false;
  bool in_place = false;
};

// Runs ReduceTree and returns its outputs; fails if it wrote outside of them or into an input.
template <typename T>
Inputs<T> Run(ReduceOp op, const Inputs<T>& inputs, Layout layout = {}) {
  constexpr std::size_t kGuard = 64;
  const std::size_t count = inputs[0].size();
  const T guard = std::bit_cast<T>(static_cast<BitsOf<T>>(0x5A5A));
  std::vector<std::vector<T>> memory;
  std::vector<const void*> in;
  std::vector<void*> out;
  for (const auto& input : inputs) {
    memory.emplace_back(kGuard + layout.offset + count, guard);
    std::copy(input.begin(), input.end(), memory.back().end() - static_cast<std::ptrdiff_t>(count));
    in.push_back(memory.back().data() + kGuard + layout.offset);
  }
  Inputs<T> results(layout.num_outputs, std::vector<T>(2 * kGuard + layout.offset + count, guard));
  for (auto& result : results) out.push_back(result.data() + kGuard + layout.offset);
  if (layout.in_place) {
    for (std::size_t k = 0; k < std::min(in.size(), out.size()); ++k) in[k] = out[k];
    for (std::size_t k = 0; k < std::min(in.size(), out.size()); ++k) {
      std::copy(inputs[k].begin(), inputs[k].end(), static_cast<T*>(out[k]));
    }
  }
  ReduceTree(DTypeOf<T>(), op, in, out, static_cast<std::int64_t>(count), layout.streaming);
  for (auto& result : results) {
    const auto begin = result.begin() + static_cast<std::ptrdiff_t>(kGuard + layout.offset);
    const auto end = begin + static_cast<std::ptrdiff_t>(count);
    const auto is_guard = [&](T value) { return ToBits(value) == ToBits(guard); };
    REQUIRE(std::all_of(result.begin(), begin, is_guard));
    REQUIRE(std::all_of(end, result.end(), is_guard));
    result = std::vector<T>(begin, end);
  }
  return results;
}

template <typename T>
std::vector<T> Reference(ReduceOp op, const Inputs<T>& inputs) {
  std::vector<T> expected;
  for (std::size_t i = 0; i < inputs[0].size(); ++i) {
    std::vector<Wide<T>> leaves;
    for (const auto& input : inputs) leaves.push_back(Widen(input[i]));
    expected.push_back(Expected<T>(op, leaves));
  }
  return expected;
}

template <typename T>
void Check(ReduceOp op, const Inputs<T>& inputs, Layout layout = {}) {
  INFO(Name(DTypeOf<T>()) << " " << static_cast<int>(op) << ", inputs " << inputs.size()
                          << ", outputs " << layout.num_outputs << ", count " << inputs[0].size()
                          << ", offset " << layout.offset << ", streaming " << layout.streaming
                          << ", in place " << layout.in_place);
  const auto expected = ToBits(Reference(op, inputs));
  for (const auto& result : Run(op, inputs, layout)) REQUIRE(ToBits(result) == expected);
}

template <typename T>
T One(ReduceOp op, const std::vector<T>& leaves) {
  Inputs<T> inputs;
  for (const T leaf : leaves) inputs.push_back({leaf});
  return Run(op, inputs)[0][0];
}

// Runs `body` once per vector unit of this CPU, and puts the choice back.
template <typename Body>
void ForEachTarget(const Body& body) {
  const std::int64_t supported = hwy::SupportedTargets();
  for (std::int64_t rest = supported; rest != 0; rest &= rest - 1) {
    const std::int64_t target = rest & -rest;
    INFO("target " << hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

using Sizes = std::initializer_list<std::size_t>;

#define ALL_TYPES float, Float16, BFloat16, double, std::int32_t, std::int64_t
#define FLOATING_TYPES float, Float16, BFloat16, double

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
