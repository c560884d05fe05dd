// The transports on GPUs.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_TRANSPORTS_H_
#define LOCKSTEP_COLLECTIVE_CUDA_TRANSPORTS_H_

#include "lockstep/collective/cuda/device_group.h"

namespace lockstep::internal::cuda {

// The group outlives its transport.

/// For any number of ranks, also on one GPU: streams are ordered by events, and the host meets once
/// more. Every GPU must reach every other's memory.
absl::StatusOr<std::unique_ptr<Transport>> MakeOrderedTransport(DeviceGroup& group);

/// For any number of ranks on any GPUs: inputs go through pinned memory of the host.
absl::StatusOr<std::unique_ptr<Transport>> MakeStagedTransport(DeviceGroup& group);

/// For 1 to kMaxPeers ranks whose kernels run at the same time, and have taken room for it: they
/// write to each other's memory, and wait there for each other.
absl::StatusOr<std::unique_ptr<Transport>> MakePeerTransport(DeviceGroup& group,
                                                             const AllReduceTuning& tuning);

/// kInvalidArgument: what is out of range, and the ranges.
absl::Status CheckTuning(const AllReduceTuning& tuning);

/// Lets kernels of `from` use memory of `to`. kUnavailable: they cannot.
absl::Status EnablePeerAccess(Device from, Device to);

/// Lets each of these GPUs use every other's memory, and proves it: copies, and kernels' loads
/// and stores, move a pattern between every ordered pair within a bounded time. kUnavailable: the
/// pair that cannot, and what went wrong. `spoil` changes a byte on its way, for tests.
absl::Status ProvePeerAccess(absl::Span<const Device> devices, bool spoil);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_TRANSPORTS_H_
