// What a kernel that has waited too long says of the call it belongs to.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_
#define LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_

#include <cstdint>
#include <string>

#include "lockstep/collective/collective_call.h"

namespace lockstep::internal::cuda {

/// A call as its kernels carry it.
struct WaitingCall {
  CollectiveKind kind;
  DType dtype;
  ReduceOp op;
  /// Captured in a graph: then `round` is that of the capture.
  bool captured;
  std::int16_t root;
  /// Elements.
  std::int64_t in_count;
  std::int64_t out_count;
  std::uint64_t round;
};

WaitingCall ToWaitingCall(const CollectiveCall& call, std::uint64_t round);
/// "all_reduce #7 (float32 x 100, sum)", or "all_reduce (float32 x 100, sum), captured as #7": with
/// the count of any shape.
std::string Describe(const WaitingCall& call);

/// One rank's, in host memory, written by its kernels alone: `call` first.
struct alignas(128) WaitReport {
  WaitingCall call;
  /// 0, or 1 + the rank that was waited for. Release pairs with the acquire of the host.
  std::uint64_t awaited;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_
