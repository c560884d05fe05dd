#include "lockstep/tools/lockstep/bench/collective_data.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "absl/numeric/int128.h"
#include "lockstep/runtime/check_tensors.h"

namespace lockstep::tools {
namespace {

using internal::Compute;
using internal::Load;
using internal::Store;

// Every bit of the result depends on every bit of both arguments.
std::uint64_t Mixed(int rank, std::int64_t index) {
  std::uint64_t bits = static_cast<std::uint64_t>(index) * 1000 + static_cast<std::uint64_t>(rank);
  bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93;
  bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93;
  return bits ^ bits >> 32;
}

// Holds every sum and average exactly: integers in 128 bits, floats in float64.
template <typename T>
using Exact = std::conditional_t<std::is_integral_v<T>, absl::int128, double>;

double Product(double a, double b) { return a * b; }
// Modulo 2^128.
absl::int128 Product(absl::int128 a, absl::int128 b) {
  return static_cast<absl::int128>(static_cast<absl::uint128>(a) * static_cast<absl::uint128>(b));
}

// Rounded once, from the type that T's sums are taken in.
template <typename T>
T RoundTo(Compute<T> value) {
  T rounded;
  Store(rounded, value);
  return rounded;
}

template <typename T>
T ReducedAt(ReduceOp op, int ranks, std::int64_t index) {
  Exact<T> exact = Load(InputAt<T>(op, 0, index));
  for (int rank = 1; rank < ranks; ++rank) {
    const Exact<T> value = Load(InputAt<T>(op, rank, index));
    switch (op) {
      case ReduceOp::kProduct:
        exact = Product(exact, value);
        break;
      case ReduceOp::kMin:
        exact = std::min(exact, value);
        break;
      case ReduceOp::kMax:
        exact = std::max(exact, value);
        break;
      case ReduceOp::kSum:
      case ReduceOp::kAverage:
        exact += value;
        break;
    }
  }
  if constexpr (std::is_integral_v<T>) {
    // Modulo 2^32 or 2^64.
    return static_cast<T>(op == ReduceOp::kAverage ? exact / ranks : exact);
  } else {
    const auto result = static_cast<Compute<T>>(exact);
    return RoundTo<T>(op == ReduceOp::kAverage ? result / static_cast<Compute<T>>(ranks) : result);
  }
}

}  // namespace

CollectiveSize SizeFor(CollectiveKind kind, std::int64_t bytes, DType dtype, int ranks) {
  const auto element = static_cast<std::int64_t>(SizeOf(dtype));
  const bool in_parts = kind != CollectiveKind::kAllReduce && kind != CollectiveKind::kBroadcast;
  std::int64_t count = bytes / element;
  if (in_parts) count = count / ranks * ranks;
  CollectiveSize size{
      .count = count, .in_count = count, .out_count = count, .bytes = count * element};
  if (kind == CollectiveKind::kReduceScatter) size.out_count = count / ranks;
  if (kind == CollectiveKind::kAllGather) size.in_count = count / ranks;
  return size;
}

double BusFactor(CollectiveKind kind, int ranks) {
  if (kind == CollectiveKind::kBroadcast || ranks == 1) return 1;
  const double others = static_cast<double>(ranks - 1) / ranks;
  return kind == CollectiveKind::kAllReduce ? 2 * others : others;
}

template <typename T>
T InputAt(ReduceOp op, int rank, std::int64_t index) {
  if constexpr (std::is_integral_v<T>) {
    // The product of odd numbers is odd: it keeps something of all of them.
    return static_cast<T>(Mixed(rank, index) | (op == ReduceOp::kProduct ? 1 : 0));
  } else {
    // Over the ranks every remainder comes in turn: no product leaves the range of its type.
    const std::int64_t turn = index * 11 + rank * 13;
    const double factor = std::ldexp(turn % 5 == 0 ? -1 : 1, static_cast<int>(turn % 3) - 1);
    const double value = op == ReduceOp::kProduct ? factor : static_cast<double>(turn % 7 - 2);
    return RoundTo<T>(static_cast<Compute<T>>(value));
  }
}

template <typename T>
T ExpectedAt(CollectiveKind kind, ReduceOp op, int rank, int ranks, const CollectiveSize& size,
             std::int64_t index) {
  const std::int64_t part = size.count / ranks;
  switch (kind) {
    case CollectiveKind::kReduceScatter:
      return ReducedAt<T>(op, ranks, part * rank + index);
    case CollectiveKind::kAllGather:
      return InputAt<T>(op, static_cast<int>(index / part), index % part);
    case CollectiveKind::kBroadcast:
      return InputAt<T>(op, 0, index);
    case CollectiveKind::kAllToAll:
      return InputAt<T>(op, static_cast<int>(index / part), part * rank + index % part);
    default:
      return ReducedAt<T>(op, ranks, index);
  }
}

#define LOCKSTEP_INSTANTIATE(T)                       \
  template T InputAt<T>(ReduceOp, int, std::int64_t); \
  template T ExpectedAt<T>(CollectiveKind, ReduceOp, int, int, const CollectiveSize&, std::int64_t)
LOCKSTEP_INSTANTIATE(float);
LOCKSTEP_INSTANTIATE(Float16);
LOCKSTEP_INSTANTIATE(BFloat16);
LOCKSTEP_INSTANTIATE(double);
LOCKSTEP_INSTANTIATE(std::int32_t);
LOCKSTEP_INSTANTIATE(std::int64_t);
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::tools
