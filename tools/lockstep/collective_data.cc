#include "lockstep/tools/lockstep/collective_data.h"

#include <algorithm>

namespace lockstep::tools {
namespace {

double ReducedAt(ReduceOp op, int ranks, std::int64_t index) {
  double result = InputAt(op, 0, index);
  for (int rank = 1; rank < ranks; ++rank) {
    const double value = InputAt(op, rank, index);
    switch (op) {
      case ReduceOp::kProduct:
        result *= value;
        break;
      case ReduceOp::kMin:
        result = std::min(result, value);
        break;
      case ReduceOp::kMax:
        result = std::max(result, value);
        break;
      case ReduceOp::kSum:
      case ReduceOp::kAverage:
        result += value;
        break;
    }
  }
  return op == ReduceOp::kAverage ? result / ranks : result;
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

bool Reduces(CollectiveKind kind) {
  return kind == CollectiveKind::kAllReduce || kind == CollectiveKind::kReduceScatter;
}

double InputAt(ReduceOp op, int rank, std::int64_t index) {
  const std::int64_t mixed = index * 5 + rank * 3;
  return static_cast<double>(op == ReduceOp::kProduct ? 1 + mixed % 2 : mixed % 7 - 2);
}

double ExpectedAt(CollectiveKind kind, ReduceOp op, int rank, int ranks, const CollectiveSize& size,
                  std::int64_t index) {
  const std::int64_t part = size.count / ranks;
  switch (kind) {
    case CollectiveKind::kReduceScatter:
      return ReducedAt(op, ranks, part * rank + index);
    case CollectiveKind::kAllGather:
      return InputAt(op, static_cast<int>(index / part), index % part);
    case CollectiveKind::kBroadcast:
      return InputAt(op, 0, index);
    case CollectiveKind::kAllToAll:
      return InputAt(op, static_cast<int>(index / part), part * rank + index % part);
    default:
      return ReducedAt(op, ranks, index);
  }
}

}  // namespace lockstep::tools
