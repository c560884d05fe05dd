// What one rank asks for in one round: the fingerprint that all ranks must agree on, and the memory
// it brings.
#ifndef LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_
#define LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
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
/// kMin and kMax follow IEEE 754-2019 minimum and maximum: a NaN on any rank gives NaN, and
/// -0 < +0.
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

/// What few rounds look at: the parts of an all_to_all, and shapes for messages.
struct CallDetails {
  /// The tensor that all ranks must have alike: the output of an all_gather, else the input. It is
  /// split or joined along `axis`, where the rank's part of it has `part` elements.
  absl::Span<const std::int64_t> shape = {};
  int axis = 0;
  std::int64_t part = 0;
  /// all_to_all: elements for, and from, each rank; null means equal parts.
  const std::int64_t* send_counts = nullptr;
  const std::int64_t* receive_counts = nullptr;
};

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
  /// See MixShape; 0 for tensors of one axis and where shapes do not matter.
  std::uint64_t shape_mix = 0;
  /// Null for tensors of one axis and equal parts. Valid while the rank is in the call.
  const CallDetails* details = nullptr;

  std::int64_t in_count() const { return outer * in_width; }
  std::int64_t out_count() const { return outer * out_width; }
  bool in_place() const { return in == out && in_width > 0; }
  const std::int64_t* send_counts() const {
    return details == nullptr ? nullptr : details->send_counts;
  }
  const std::int64_t* receive_counts() const {
    return details == nullptr ? nullptr : details->receive_counts;
  }

  /// The call as messages tell it:
  ///
  ///   all_reduce (float32 x 4096, sum)
  ///   all_reduce (float32 [64, 64], sum)                             // other than one axis
  ///   reduce_scatter (float32 [4, 4] -> [2, 4], axis 0, sum)
  ///   all_reduce #42 (float32 x 4096, sum)                           // with a round number
  ///
  /// Calls that may not meet in one round never have the same text, but for the counts of an
  /// all_to_all.
  std::string Describe() const;
  std::string Describe(std::uint64_t round) const;
};

/// A number that tells shapes and axes apart: surely where one extent differs, and with a chance of
/// 2^-64 to the contrary where more do.
std::uint64_t MixShape(absl::Span<const std::int64_t> shape, int axis);

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_
