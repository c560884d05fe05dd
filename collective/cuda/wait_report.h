// What a kernel that has waited too long says of the call it belongs to.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_
#define LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_

#include <cstdint>

#include "lockstep/collective/collective_call.h"

namespace lockstep::internal::cuda {

/// In host memory, written by the device: `count` first, then `call`.
struct WaitReport {
  /// 0, or what CallOnDevice() made of the call, plus one, plus the rank that was waited for.
  std::uint64_t call;
  /// Elements that the rank brought.
  std::int64_t count;
};

/// The call in one word, for kernels to carry: round (the lowest 39 bits of it), kind, type,
/// reduction, root, whether it was captured. The lowest eight bits are 0.
std::uint64_t CallOnDevice(const CollectiveCall& call, std::uint64_t round);

/// "all_reduce #7 (float32 x 100, sum)", with ", in a graph" where it was captured, and the rank
/// that was waited for. `report.call` is not 0.
struct WaitedCall {
  std::string description;
  int awaited_rank;
};
WaitedCall ReadWaitReport(const WaitReport& report);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_WAIT_REPORT_H_
