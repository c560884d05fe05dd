#include "lockstep/collective/cuda/wait_report.h"

#include "lockstep/runtime/status.h"

namespace lockstep::internal::cuda {

WaitingCall ToWaitingCall(const CollectiveCall& call, std::uint64_t round) {
  return {.kind = call.kind,
          .dtype = call.dtype,
          .op = call.op,
          .captured = call.capturing,
          .root = call.root,
          .in_count = call.in_count(),
          .out_count = call.out_count(),
          .round = round};
}

std::string Describe(const WaitingCall& call) {
  const CollectiveCall asked = {.kind = call.kind,
                                .dtype = call.dtype,
                                .op = call.op,
                                .root = call.root,
                                .in_width = call.in_count,
                                .out_width = call.out_count};
  if (!call.captured) return asked.Describe(call.round);
  return absl::StrCat(asked.Describe(), ", captured as #", call.round);
}

}  // namespace lockstep::internal::cuda
