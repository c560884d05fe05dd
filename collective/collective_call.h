// What one rank asks for in one round: the fingerprint that all ranks must agree on, and the memory
// it brings.
#ifndef LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_
#define LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_

#include <cstdint>
#include <string>

#include "lockstep/runtime/dtype.h"

namespace lockstep {

enum class CollectiveKind : std::uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kAllToAll,
  kBarrier,
  kSplit
};

/// How elements of different ranks combine. Sums, averages and products are taken pairwise in a
/// fixed tree over the ranks (for four: (0+1)+(2+3); for a count that is no power of two the left
/// side takes the largest power of two below it), in float32 for 16-bit types, and rounded once:
/// the same bits on every rank, device, transport, message size and run, whatever the
/// floating-point modes of the ranks' threads. A NaN result is the type's canonical quiet NaN, but
/// a group of one changes no bit. Integers wrap around.
///
/// kAverage divides the sum by the number of ranks, and is right wherever it fits the type. Of
/// integers, the sum loses nothing and is cut towards zero. Of floats, a sum that is not finite is
/// taken again of the inputs divided by a power of two (which rounds none but the smallest), so
/// that the average of numbers is a number.
///
/// kMin and kMax follow IEEE 754-2019 minimum and maximum: a NaN on any rank gives NaN, and -0 <
/// +0.
enum class ReduceOp : std::uint8_t { kSum, kAverage, kProduct, kMin, kMax };

inline constexpr ReduceOp kAllReduceOps[] = {ReduceOp::kSum, ReduceOp::kAverage, ReduceOp::kProduct,
                                             ReduceOp::kMin, ReduceOp::kMax};

/// "all_reduce", "reduce_scatter", ...
absl::string_view Name(CollectiveKind kind);
/// Whether the ranks only meet: barrier and split.
inline bool IsMeeting(CollectiveKind kind) {
  return kind == CollectiveKind::kBarrier || kind == CollectiveKind::kSplit;
}
/// "sum", "avg", "prod", "min", "max".
absl::string_view Name(ReduceOp op);
/// The inverse. kInvalidArgument: none of them.
absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name);

/// One rank's call. Counts are elements. Inputs and outputs are seen as [outer, width]: the axes
/// before the one that is split or joined, and everything from it on; only reduce-scatter and
/// all-gather have an outer above 1.
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::kBarrier;
  DType dtype = DType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  /// What is queued is recorded for a CUDA graph rather than run.
  bool capturing = false;
  std::int32_t root = 0;
  std::int64_t outer = 1;
  std::int64_t in_width = 0;
  std::int64_t out_width = 0;
  const void* in = nullptr;
  void* out = nullptr;
  /// all_to_all: elements for, and from, each rank; null means equal parts.
  const std::int64_t* send_counts = nullptr;
  const std::int64_t* receive_counts = nullptr;

  std::int64_t in_count() const { return outer * in_width; }
  std::int64_t out_count() const { return outer * out_width; }
  bool in_place() const { return in == out && in_width > 0; }

  /// "all_reduce (float32 x 4096, sum)"; with a round number, "all_reduce #42 (float32 x 4096,
  /// sum)".
  std::string Describe() const;
  std::string Describe(std::uint64_t round) const;
};

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_
