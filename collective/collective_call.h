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
/// kAverage divides the sum by the number of ranks, and is right whenever it fits the type. Integer
/// sums lose nothing, and the quotient is truncated towards zero. A floating-point sum that is not
/// finite is taken again over the inputs divided by a power of two (which rounds none but the
/// smallest), so that the average of finite numbers is finite.
///
/// kMin and kMax follow IEEE 754-2019 minimum and maximum: a NaN on any rank gives NaN, and
/// -0 < +0.
enum class ReduceOp : std::uint8_t { kSum, kAverage, kProduct, kMin, kMax };

inline constexpr ReduceOp kAllReduceOps[] = {ReduceOp::kSum, ReduceOp::kAverage, ReduceOp::kProduct,
                                             ReduceOp::kMin, ReduceOp::kMax};

/// "all_reduce", "reduce_scatter", ...
absl::string_view Name(CollectiveKind kind);
/// Whether the ranks only meet, and no data moves: barrier and split.
inline bool IsMeeting(CollectiveKind kind) {
  return kind == CollectiveKind::kBarrier || kind == CollectiveKind::kSplit;
}
/// Whether elements of different ranks are combined; the other calls only move them.
inline bool Reduces(CollectiveKind kind) {
  return kind == CollectiveKind::kAllReduce || kind == CollectiveKind::kReduceScatter;
}
/// Whether each rank gives or takes a part of a whole, split or joined along an axis.
inline bool HasParts(CollectiveKind kind) {
  return kind == CollectiveKind::kReduceScatter || kind == CollectiveKind::kAllGather;
}
/// "sum", "avg", "prod", "min", "max".
absl::string_view Name(ReduceOp op);
/// The inverse. kInvalidArgument: no such name.
absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name);

/// What only some calls need: the parts of an all_to_all, and shapes for messages.
struct CallDetails {
  /// The shape that must be the same on all ranks: that of an all_gather's output, else of the
  /// input. It is split or joined along `axis`, of which the rank's part has extent `part`.
  absl::Span<const std::int64_t> shape = {};
  int axis = 0;
  std::int64_t part = 0;
  /// all_to_all: elements for, and from, each rank; null means equal parts.
  const std::int64_t* send_counts = nullptr;
  const std::int64_t* receive_counts = nullptr;
};

/// One rank's call. Counts are in elements. Inputs and outputs are seen as [outer, width]: the axes
/// before the one that is split or joined, and all others; only reduce-scatter and all-gather have
/// an outer above 1.
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::kBarrier;
  DType dtype = DType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  /// The work that is queued is recorded for a CUDA graph rather than run.
  bool capturing : 1 = false;
  /// On a stream beside the rank's own (see Communicator). Ranks need not have it alike.
  bool aside : 1 = false;
  /// Others' kernels wait on the group's GPUs too, or several of its own on one.
  bool in_company : 1 = false;
  std::int16_t root = 0;
  /// See AsyncOptions. Ranks need not have it alike.
  std::int16_t max_multiprocessors = 0;
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
  /// all_to_all of `world_size` ranks: which elements of the input go to `rank`, and which of the
  /// output come from it.
  struct Run {
    std::int64_t offset;
    std::int64_t count;
  };
  Run SentTo(int rank, int world_size) const;
  Run ReceivedFrom(int rank, int world_size) const;
  const std::int64_t* send_counts() const {
    return details == nullptr ? nullptr : details->send_counts;
  }
  const std::int64_t* receive_counts() const {
    return details == nullptr ? nullptr : details->receive_counts;
  }

  /// The call as messages put it:
  ///
  ///   all_reduce (float32 x 4096, sum)
  ///   all_reduce (float32 [64, 64], sum)                       not of one axis
  ///   reduce_scatter (float32 [4, 4] -> [2, 4], axis 0, sum)
  ///   all_reduce #42 (float32 x 4096, sum)                     with a round number
  ///
  /// Calls that may not meet in one round never have the same text, except where only the counts of
  /// an all_to_all differ.
  std::string Describe() const;
  std::string Describe(std::uint64_t round) const;
};

/// A number that tells shapes and axes apart: always where one extent differs, and but for a chance
/// of 2^-64 where more do.
std::uint64_t MixShape(absl::Span<const std::int64_t> shape, int axis);

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_COLLECTIVE_CALL_H_
