#include "lockstep/collective/shares.h"

namespace lockstep::internal {
namespace {

// Columns [offset, offset + width) of a call's input or output, whose rows have `pitch` elements.
Part Columns(const CollectiveCall& call, const void* base, std::int64_t offset, std::int64_t width,
             std::int64_t pitch) {
  return {At(base, offset, call.dtype), call.outer * width, width, pitch};
}

// How many elements along the axis that is split or joined the ranks before `rank` have.
std::int64_t WidthBefore(const Round& round, int rank, std::int64_t CollectiveCall::*width) {
  std::int64_t offset = 0;
  for (int r = 0; r < rank; ++r) offset += round.call(r).*width;
  return offset;
}

}  // namespace

Pull PullOf(const Round& round, int taker, int giver) {
  const CollectiveCall& from = round.call(giver);
  const CollectiveCall& to = round.call(taker);
  std::int64_t width = to.out_width;
  std::int64_t from_offset = 0;
  std::int64_t to_offset = 0;
  switch (from.kind) {
    case CollectiveKind::kReduceScatter:
      from_offset = WidthBefore(round, taker, &CollectiveCall::out_width);
      break;
    case CollectiveKind::kAllGather:
      width = from.in_width;
      to_offset = WidthBefore(round, giver, &CollectiveCall::in_width);
      break;
    case CollectiveKind::kAllToAll: {
      const CollectiveCall::Run sent = from.SentTo(taker, round.world_size());
      width = sent.count;
      from_offset = sent.offset;
      to_offset = to.ReceivedFrom(giver, round.world_size()).offset;
      break;
    }
    default:  // a broadcast
      if (giver != to.root) width = 0;
  }
  return {Columns(from, from.in, from_offset, width, from.in_width),
          Columns(to, to.out, to_offset, width, to.out_width)};
}

Swap SwapOf(const Round& round, int other) {
  const CollectiveCall& mine = round.mine();
  const std::int64_t part = mine.out_width / round.world_size();
  const std::int64_t half = part / 2;
  const bool lower = round.rank < other;
  const std::int64_t begin = lower ? 0 : half;
  return {At(mine.out, part * other + begin, mine.dtype),
          At(round.call(other).out, part * round.rank + begin, mine.dtype),
          lower ? half : part - half};
}

}  // namespace lockstep::internal
