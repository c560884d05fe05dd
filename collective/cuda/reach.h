// Which memory the GPUs of a group may use.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_REACH_H_
#define LOCKSTEP_COLLECTIVE_CUDA_REACH_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/device.h"

namespace lockstep::internal::cuda {

/// Asked about every operand of every call, small or large: a kernel that touches memory which its
/// GPU may not use loses the device for the whole process, and whether peers touch an operand
/// depends on its size. So memory is refused at every size or at none.
///
/// The driver is asked about an allocation once, and about its number (which no other allocation of
/// the process ever gets) in each call, since an address may belong to another one by now. Access
/// that is taken away from a live allocation is not noticed.
class Reach {
 public:
  /// The ranks' devices. `by_peers`: every device of the group touches what a rank brings, not its
  /// own alone.
  Reach(absl::Span<const Device> devices, bool by_peers);

  /// kInvalidArgument: memory that a GPU may not read and write, by kernels and copies: none of a
  /// GPU's, or of a pool or mapping to which it was given no access. For the rank's own thread.
  absl::Status Check(int rank, const CollectiveCall& call);

 private:
  // A stretch of an allocation that was found good, to its ends.
  struct Known {
    std::uint64_t id = 0;
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
  };
  // A rank's own, by the number of the allocation.
  struct alignas(128) Rank {
    std::array<Known, 64> known = {};
    std::vector<Device> users;
  };

  static bool MayUse(Rank& rank, const void* data, std::int64_t bytes, Device& refused);

  std::vector<Rank> ranks_;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_REACH_H_
