// What the benchmark puts into a collective, and what must come out.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_COLLECTIVE_DATA_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_COLLECTIVE_DATA_H_

#include <cstdint>

#include "lockstep/collective/collective_call.h"

namespace lockstep::tools {

/// Those that move data.
inline constexpr CollectiveKind kMovingKinds[] = {
    CollectiveKind::kAllReduce, CollectiveKind::kReduceScatter, CollectiveKind::kAllGather,
    CollectiveKind::kBroadcast, CollectiveKind::kAllToAll};

/// One size of one collective: how many elements a rank gives and gets, and what nccl-tests counts
/// as its size.
struct CollectiveSize {
  std::int64_t count;
  std::int64_t in_count;
  std::int64_t out_count;
  std::int64_t bytes;
};

/// The largest one of at most `bytes` that the ranks can share equally.
CollectiveSize SizeFor(CollectiveKind kind, std::int64_t bytes, DType dtype, int ranks);

/// What crosses each link, over what a rank asked for (nccl-tests, doc/PERFORMANCE.md).
double BusFactor(CollectiveKind kind, int ranks);

/// Element `index` of the rank's input; T is the element type of a DType. Integers come from all of
/// their range, so that sums and products wrap. Floats are small whole numbers, and for products
/// 1/2, 1 and 2 with a sign: whatever the order, nothing is rounded on the way.
template <typename T>
T InputAt(ReduceOp op, int rank, std::int64_t index);

/// Element `index` of the rank's output, to the last bit: what ReduceOp promises of those inputs.
template <typename T>
T ExpectedAt(CollectiveKind kind, ReduceOp op, int rank, int ranks, const CollectiveSize& size,
             std::int64_t index);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_COLLECTIVE_DATA_H_
