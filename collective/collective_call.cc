#include "lockstep/collective/collective_call.h"

#include "lockstep/runtime/status.h"

namespace lockstep {
namespace {

bool Reduces(CollectiveKind kind) {
  return kind == CollectiveKind::kAllReduce || kind == CollectiveKind::kReduceScatter;
}

// "float32 x 4096, sum", or nothing for calls without data.
std::string Arguments(const CollectiveCall& call) {
  if (IsMeeting(call.kind)) return "";
  std::string text = absl::StrCat(" (", Name(call.dtype), " x ", call.in_count());
  if (call.out_count() != call.in_count()) absl::StrAppend(&text, " -> ", call.out_count());
  if (Reduces(call.kind)) absl::StrAppend(&text, ", ", Name(call.op));
  if (call.kind == CollectiveKind::kBroadcast) absl::StrAppend(&text, ", root ", call.root);
  return absl::StrCat(text, ")");
}

}  // namespace

absl::string_view Name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllReduce:
      return "all_reduce";
    case CollectiveKind::kReduceScatter:
      return "reduce_scatter";
    case CollectiveKind::kAllGather:
      return "all_gather";
    case CollectiveKind::kBroadcast:
      return "broadcast";
    case CollectiveKind::kAllToAll:
      return "all_to_all";
    case CollectiveKind::kBarrier:
      return "barrier";
    case CollectiveKind::kSplit:
      break;
  }
  return "split";
}

absl::string_view Name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kAverage:
      return "avg";
    case ReduceOp::kProduct:
      return "prod";
    case ReduceOp::kMin:
      return "min";
    case ReduceOp::kMax:
      break;
  }
  return "max";
}

absl::StatusOr<ReduceOp> ParseReduceOp(absl::string_view name) {
  for (const ReduceOp op : kAllReduceOps) {
    if (name == Name(op)) return op;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("reduction \"", name, "\": there are sum, avg, prod, min and max"));
}

std::string CollectiveCall::Describe() const {
  return absl::StrCat(Name(kind), Arguments(*this), capturing ? ", being captured" : "");
}

std::string CollectiveCall::Describe(std::uint64_t round) const {
  return absl::StrCat(Name(kind), " #", round, Arguments(*this),
                      capturing ? ", being captured" : "");
}

}  // namespace lockstep
