// What the tests of reductions share: a reference of one element at a time, and runs of ReduceTree
// whose memory is watched.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_REDUCTION_H_
#define LOCKSTEP_TESTS_COLLECTIVE_REDUCTION_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "hwy/highway.h"
#include "lockstep/collective/reduce_tree.h"
#include "lockstep/tests/catch.h"

namespace lockstep::internal {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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

// ---- Averages: what the contract says, in types with enough digits.

#ifdef __SIZEOF_INT128__
using Int128 = __int128;
#endif
// More than twice the digits: rounding again to C gives what rounding once would.
template <typename C>
using Roomy = std::conditional_t<sizeof(C) == 4, double,
#ifdef __SIZEOF_FLOAT128__
                                 __float128
#else
                                 long double
#endif
                                 >;

// To C's digits, and to an exponent without an upper limit.
template <typename C>
Roomy<C> RoundedTo(Roomy<C> value) {
  constexpr C kRoom = 0x1p-40f;
  const bool large = value > 1 || value < -1;
  return large ? Roomy<C>{static_cast<C>(value * kRoom)} / kRoom : Roomy<C>{static_cast<C>(value)};
}

template <typename C>
Roomy<C> RoomyTree(const std::vector<C>& leaves, std::size_t begin, std::size_t end) {
  if (end - begin == 1) return leaves[begin];
  const std::size_t left = std::bit_floor(end - begin - 1);
  return RoundedTo<C>(RoomyTree(leaves, begin, begin + left) +
                      RoomyTree(leaves, begin + left, end));
}

template <typename C>
C AverageOf(const std::vector<C>& leaves) {
  if constexpr (std::is_integral_v<C>) {
    Int128 sum = 0;
    for (const C leaf : leaves) sum += leaf;
    return static_cast<C>(sum / static_cast<Int128>(leaves.size()));
  } else {
    constexpr C kMax = std::numeric_limits<C>::max();
    const Roomy<C> average =
        RoundedTo<C>(RoomyTree(leaves, 0, leaves.size()) / static_cast<C>(leaves.size()));
    // The average of numbers is a number.
    const bool finite =
        std::all_of(leaves.begin(), leaves.end(), [](C x) { return std::isfinite(x); });
    return static_cast<C>(!finite || (average <= kMax && average >= -kMax) ? average
                          : average > 0                                    ? kMax
                                                                           : -kMax);
  }
}

template <typename T>
T Expected(ReduceOp op, const std::vector<Wide<T>>& leaves) {
  using C = Wide<T>;
  const C result =
      op == ReduceOp::kAverage ? AverageOf(leaves) : Tree(op, leaves, 0, leaves.size());
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

}  // namespace lockstep::internal

#endif  // LOCKSTEP_TESTS_COLLECTIVE_REDUCTION_H_
