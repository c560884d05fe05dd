// The arithmetic of averages beyond a sum and a division, one element at a time. The CPU and, by
// nvcc, the GPUs compile the same lines, and so have the same bits.
#ifndef LOCKSTEP_COLLECTIVE_AVERAGE_H_
#define LOCKSTEP_COLLECTIVE_AVERAGE_H_

#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define LOCKSTEP_HOST_DEVICE __host__ __device__
#else
#define LOCKSTEP_HOST_DEVICE
#endif

namespace lockstep::internal {

/// A sum of up to 2^22 integers that loses nothing, and its average, cut towards zero.
template <typename T>
struct ExactSum;

template <>
struct ExactSum<std::int32_t> {
  std::int64_t sum = 0;

  LOCKSTEP_HOST_DEVICE void Add(std::int32_t value) { sum += value; }
  /// The sum is below 2^53, and its quotient further from the next whole number than float64
  /// rounds: exact, and quicker than a division of 64 bits.
  LOCKSTEP_HOST_DEVICE std::int32_t Average(int world_size) const {
    return static_cast<std::int32_t>(static_cast<double>(sum) / world_size);
  }
};

template <>
struct ExactSum<std::int64_t> {
  static constexpr std::int64_t kDigit = std::int64_t{1} << 32;
  /// high * kDigit + low.
  std::int64_t high = 0;
  std::int64_t low = 0;

  LOCKSTEP_HOST_DEVICE void Add(std::int64_t value) {
    high += value >> 32;
    low += value & (kDigit - 1);
  }
  LOCKSTEP_HOST_DEVICE std::int64_t Average(int world_size) const {
    std::int64_t upper = high + (low >> 32);
    std::int64_t lower = low & (kDigit - 1);
    if (upper == static_cast<std::int32_t>(upper)) return (upper * kDigit + lower) / world_size;
    // The magnitude, divided digit by digit.
    const bool negative = upper < 0;
    if (negative) {
      upper = -upper - (lower != 0);
      lower = -lower & (kDigit - 1);
    }
    const std::uint64_t rest = static_cast<std::uint64_t>(upper % world_size * kDigit + lower);
    const std::uint64_t magnitude = static_cast<std::uint64_t>(upper / world_size) * kDigit +
                                    rest / static_cast<std::uint64_t>(world_size);
    return static_cast<std::int64_t>(negative ? 0 - magnitude : magnitude);
  }
};

template <typename C>
inline constexpr C kLargest = std::numeric_limits<C>::max();

template <typename C>
LOCKSTEP_HOST_DEVICE constexpr bool IsFinite(C value) {
  return value >= -kLargest<C> && value <= kLargest<C>;
}

/// Where a sum of floats is not finite, it is taken again of the inputs times `factor`, the power
/// of two with which no sum of numbers overflows, and divided by `divisor`.
template <typename C>
struct Downscale {
  C factor;
  C divisor;
};

template <typename C>
LOCKSTEP_HOST_DEVICE constexpr Downscale<C> DownscaleFor(int world_size) {
  C power = 1;
  while (power < static_cast<C>(world_size)) power *= 2;
  return {1 / power, static_cast<C>(world_size) / power};
}

template <typename C>
LOCKSTEP_HOST_DEVICE constexpr C AverageOfDownscaled(C sum, Downscale<C> scale) {
  const C average = sum / scale.divisor;
  // Rounding may have carried it past the largest number, where no average of numbers lies.
  if (IsFinite(average) || !IsFinite(sum)) return average;
  return average > 0 ? kLargest<C> : -kLargest<C>;
}

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_AVERAGE_H_
