#include "lockstep/collective/collective_call.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <vector>

#include "lockstep/runtime/status.h"
#include "lockstep/runtime/tensor.h"

namespace lockstep {
namespace {

// Whether the call asks for as many elements as its shape has. One that was changed on its way
// does not. Wraps around like the counts.
bool HasShape(const CollectiveCall& call) {
  const bool gathers = call.kind == CollectiveKind::kAllGather;
  return internal::Product(call.details->shape) == (gathers ? call.out_count() : call.in_count());
}

// "x 4096", "x 10 -> 3", "[64, 64]" or "[4, 4] -> [2, 4], axis 0".
std::string Extents(const CollectiveCall& call) {
  const bool flat = call.details == nullptr || call.kind == CollectiveKind::kAllToAll;
  if (flat || !HasShape(call)) {
    const bool same = call.in_count() == call.out_count();
    return absl::StrCat("x ", call.in_count(), same ? "" : absl::StrCat(" -> ", call.out_count()));
  }
  const CallDetails& details = *call.details;
  const bool gathers = call.kind == CollectiveKind::kAllGather;
  if (!HasParts(call.kind)) return ToString(details.shape);
  std::vector<std::int64_t> part(details.shape.begin(), details.shape.end());
  part[details.axis] = details.part;
  const std::string in = ToString(gathers ? part : details.shape);
  const std::string out = ToString(gathers ? details.shape : part);
  return absl::StrCat(in, in == out ? "" : absl::StrCat(" -> ", out), ", axis ", details.axis);
}

// " (float32 x 4096, sum)", or nothing for calls without data.
std::string Arguments(const CollectiveCall& call) {
  if (IsMeeting(call.kind)) return "";
  std::string text = absl::StrCat(" (", Name(call.dtype), " ", Extents(call));
  if (Reduces(call.kind)) absl::StrAppend(&text, ", ", Name(call.op));
  if (call.kind == CollectiveKind::kBroadcast) absl::StrAppend(&text, ", root ", call.root);
  if (call.kind == CollectiveKind::kAllToAll && call.in_place()) {
    absl::StrAppend(&text, ", in place");
  }
  return absl::StrCat(text, ")");
}

// Runs follow each other, equal ones unless counts are given.
CollectiveCall::Run RunOf(const std::int64_t* counts, std::int64_t width, int rank,
                          int world_size) {
  if (counts == nullptr) return {width / world_size * rank, width / world_size};
  return {std::accumulate(counts, counts + rank, std::int64_t{0}), counts[rank]};
}

}  // namespace

absl::string_view Name(CollectiveKind kind) {
  constexpr absl::string_view kNames[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast",
                                          "all_to_all", "barrier",        "split"};
  return kNames[std::min(static_cast<std::size_t>(kind), std::size(kNames) - 1)];
}

absl::string_view Name(ReduceOp op) {
  constexpr absl::string_view kNames[] = {"sum", "avg", "prod", "min", "max"};
  return kNames[std::min(static_cast<std::size_t>(op), std::size(kNames) - 1)];
}

absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name) {
  for (const ReduceOp op : kAllReduceOps) {
    if (name == Name(op)) return op;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("reduction \"", name, "\": there are sum, avg, prod, min and max"));
}

CollectiveCall::Run CollectiveCall::SentTo(int rank, int world_size) const {
  return RunOf(send_counts(), in_width, rank, world_size);
}
CollectiveCall::Run CollectiveCall::ReceivedFrom(int rank, int world_size) const {
  return RunOf(receive_counts(), out_width, rank, world_size);
}

std::string CollectiveCall::Describe() const {
  return absl::StrCat(Name(kind), Arguments(*this), capturing ? ", being captured" : "");
}

std::string CollectiveCall::Describe(std::uint64_t round) const {
  return absl::StrCat(Name(kind), " #", round, Arguments(*this),
                      capturing ? ", being captured" : "");
}

std::uint64_t MixShape(absl::Span<const std::int64_t> shape, int axis) {
  std::uint64_t mix = (shape.size() << 32) + static_cast<std::uint64_t>(axis) + 1;
  // Each step can be undone, so what differs once stays different.
  const auto stir = [&mix] {
    mix *= 0x9E3779B97F4A7C15u;
    mix ^= mix >> 32;
  };
  for (const std::int64_t extent : shape) {
    stir();
    mix ^= static_cast<std::uint64_t>(extent);
  }
  stir();
  return mix;
}

}  // namespace lockstep
