#include "lockstep/collective/agreement.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"

namespace lockstep::internal {
namespace {

using Calls = absl::Span<const CollectiveCall* const>;

// In what tensors of one kind, seen flat alike or not, have another shape.
const char* DifferingShape(const CollectiveCall& a, const CollectiveCall& b) {
  const bool both = a.details != nullptr && b.details != nullptr;
  if (both && a.details->axis != b.details->axis) return "axis";
  switch (a.kind) {
    case CollectiveKind::kReduceScatter:
      return "input shape";
    case CollectiveKind::kAllGather:
      return "output shape";
    default:
      return "shape";
  }
}

// The first field in which a rank differs from rank 0, or null.
const char* DifferingField(const CollectiveCall& a, const CollectiveCall& b) {
  if (a.kind != b.kind) return "operation";
  if (a.capturing != b.capturing) return "capture of a graph";
  if (a.dtype != b.dtype) return "element type";
  if (a.op != b.op) return "reduction";
  if (a.root != b.root) return "root";
  if (a.shape_mix != b.shape_mix) return DifferingShape(a, b);
  if (a.outer != b.outer) return "number of rows before the split axis";
  switch (a.kind) {
    case CollectiveKind::kAllReduce:
    case CollectiveKind::kBroadcast:
      return a.in_width != b.in_width ? "count" : nullptr;
    case CollectiveKind::kReduceScatter:
      return a.in_width != b.in_width ? "input count" : nullptr;
    case CollectiveKind::kAllGather:
      return a.out_width != b.out_width ? "output count" : nullptr;
    case CollectiveKind::kAllToAll:
      return a.in_place() != b.in_place() ? "choice to work in place" : nullptr;
    case CollectiveKind::kBarrier:
    case CollectiveKind::kSplit:
      break;
  }
  return nullptr;
}

// "ranks 0, 2: all_reduce (float32 x 8, sum); rank 1: all_reduce (float32 x 7, sum)", equal ones
// together.
std::string WhatEachAsked(Calls calls) {
  std::string text;
  std::vector<bool> told(calls.size());
  for (std::size_t rank = 0; rank < calls.size(); ++rank) {
    if (told[rank]) continue;
    const std::string asked = calls[rank]->Describe();
    std::vector<int> same;
    for (std::size_t other = rank; other < calls.size(); ++other) {
      if (told[other] || calls[other]->Describe() != asked) continue;
      told[other] = true;
      same.push_back(static_cast<int>(other));
    }
    absl::StrAppend(&text, text.empty() ? "" : "; ", RankList(same), ": ", asked);
  }
  return text;
}

absl::Status Differ(Calls calls, absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat("the ranks differ in ", what, ": ", WhatEachAsked(calls)));
}

// The parts that ranks give or take must make up the whole.
absl::Status CheckParts(Calls calls) {
  const CollectiveCall& first = *calls[0];
  if (!HasParts(first.kind)) return absl::OkStatus();
  const bool scatter = first.kind == CollectiveKind::kReduceScatter;
  const std::int64_t whole = scatter ? first.in_width : first.out_width;
  std::int64_t sum = 0;
  for (const CollectiveCall* call : calls) {
    if (__builtin_add_overflow(sum, scatter ? call->out_width : call->in_width, &sum)) sum = -1;
    if (sum < 0) break;
  }
  if (sum == whole) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(first.Describe(), ": the parts of the ", calls.size(), " ranks add up to ",
                   first.outer, " x ", sum, " elements, but the whole is ", first.outer, " x ",
                   whole, "; ", WhatEachAsked(calls)));
}

// What s sends to r must be what r expects from s.
absl::Status CheckExchange(Calls calls) {
  if (calls[0]->kind != CollectiveKind::kAllToAll) return absl::OkStatus();
  const int ranks = static_cast<int>(calls.size());
  for (int s = 0; s < ranks; ++s) {
    for (int r = 0; r < ranks; ++r) {
      const std::int64_t sent = calls[s]->SentTo(r, ranks).count;
      const std::int64_t expected = calls[r]->ReceivedFrom(s, ranks).count;
      if (sent == expected) continue;
      return absl::FailedPreconditionError(absl::StrCat("all_to_all: rank ", s, " sends ", sent,
                                                        " elements to rank ", r, ", which expects ",
                                                        expected));
    }
  }
  return absl::OkStatus();
}

struct Bytes {
  std::uintptr_t begin;
  std::uintptr_t end;
  bool empty() const { return begin == end; }
  bool Overlaps(const Bytes& other) const {
    return !empty() && !other.empty() && begin < other.end && other.begin < end;
  }
};

Bytes BytesOf(const void* data, std::int64_t count, DType dtype) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return {begin, begin + static_cast<std::uintptr_t>(count) * SizeOf(dtype)};
}

// Only the root's input of a broadcast is read.
Bytes InputOf(const CollectiveCall& call, std::size_t rank) {
  const bool unread =
      call.kind == CollectiveKind::kBroadcast && static_cast<std::size_t>(call.root) != rank;
  return BytesOf(call.in, unread ? 0 : call.in_count(), call.dtype);
}

// A rank may scatter into, or gather from, its own part of the whole, and no other part.
absl::Status CheckInPlace(Calls calls) {
  if (!HasParts(calls[0]->kind)) return absl::OkStatus();
  const bool scatter = calls[0]->kind == CollectiveKind::kReduceScatter;
  std::int64_t offset = 0;
  for (std::size_t rank = 0; rank < calls.size(); ++rank) {
    const CollectiveCall& call = *calls[rank];
    const Bytes in = BytesOf(call.in, call.in_count(), call.dtype);
    const Bytes out = BytesOf(call.out, call.out_count(), call.dtype);
    const Bytes whole = scatter ? in : out;
    const Bytes part = scatter ? out : in;
    const std::uintptr_t own =
        whole.begin + static_cast<std::uintptr_t>(offset) * SizeOf(call.dtype);
    if (in.Overlaps(out) && (call.outer != 1 || part.begin != own)) {
      return absl::InvalidArgumentError(
          absl::StrCat(call.Describe(), ": input and output of rank ", rank, " overlap, but ",
                       scatter ? "the output" : "the input",
                       " is not this rank's own part, which begins at element ", offset,
                       " of an undivided first axis"));
    }
    offset += scatter ? call.out_width : call.in_width;
  }
  return absl::OkStatus();
}

// Whether all that a rank touches, from the first byte to the last, is apart from what the others
// do: then nothing overlaps. Looks at each rank once, where CheckOverlap looks at each pair.
bool AreApart(Calls calls) {
  std::array<Bytes, 64> spans;  // no memory is asked for while the others wait
  if (calls.size() > spans.size()) return false;
  std::size_t count = 0;
  for (std::size_t rank = 0; rank < calls.size(); ++rank) {
    const CollectiveCall& call = *calls[rank];
    const Bytes in = InputOf(call, rank);
    const Bytes out = BytesOf(call.out, call.out_count(), call.dtype);
    if (in.empty() && out.empty()) continue;
    const Bytes& a = in.empty() ? out : in;
    const Bytes& b = out.empty() ? in : out;
    const Bytes span = {std::min(a.begin, b.begin), std::max(a.end, b.end)};
    // Sorted as it comes, which it most often is.
    std::size_t place = count++;
    for (; place > 0 && span.begin < spans[place - 1].begin; --place) {
      spans[place] = spans[place - 1];
    }
    spans[place] = span;
  }
  return std::adjacent_find(spans.begin(), spans.begin() + count,
                            [](const Bytes& a, const Bytes& b) { return a.end > b.begin; }) ==
         spans.begin() + count;
}

absl::Status CheckOverlap(Calls calls) {
  if (AreApart(calls)) return absl::OkStatus();
  for (std::size_t writer = 0; writer < calls.size(); ++writer) {
    const Bytes out = BytesOf(calls[writer]->out, calls[writer]->out_count(), calls[writer]->dtype);
    for (std::size_t other = 0; other < calls.size(); ++other) {
      if (other == writer) continue;
      const bool outputs =
          out.Overlaps(BytesOf(calls[other]->out, calls[other]->out_count(), calls[other]->dtype));
      if (!outputs && !out.Overlaps(InputOf(*calls[other], other))) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          calls[writer]->Describe(), ": the output of rank ", writer, " overlaps the ",
          outputs ? "output" : "input", " of rank ", other, "; each rank needs memory of its own"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAgreement(Calls calls) {
  for (const CollectiveCall* call : calls) {
    if (const char* field = DifferingField(*calls[0], *call)) return Differ(calls, field);
  }
  if (IsMeeting(calls[0]->kind)) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(CheckParts(calls));
  LOCKSTEP_RETURN_IF_ERROR(CheckExchange(calls));
  LOCKSTEP_RETURN_IF_ERROR(CheckInPlace(calls));
  return CheckOverlap(calls);
}

std::string RankList(absl::Span<const int> ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "));
}

}  // namespace lockstep::internal
