// What all transports on GPUs share: the ranks' streams, the word by which kernels are told to give
// up, and the end of everything.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
#define LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_

#include <atomic>
#include <vector>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/reach.h"
#include "lockstep/collective/transport.h"
#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {

class DeviceGroup {
 public:
  /// Of up to kMostRanks streams. kResourceExhausted: no pinned memory, or no more streams.
  static absl::StatusOr<std::unique_ptr<DeviceGroup>> Create(absl::Span<const Stream> streams,
                                                             std::chrono::nanoseconds timeout);
  ~DeviceGroup();
  DeviceGroup(const DeviceGroup&) = delete;
  DeviceGroup& operator=(const DeviceGroup&) = delete;

  int num_ranks() const { return static_cast<int>(streams_.size()); }
  Device device(int rank) const { return streams_[static_cast<std::size_t>(rank)].device(); }
  /// Where the rank's calls queue their work now: its stream, or its side stream.
  Stream stream(int rank) const;
  cudaStream_t native(int rank) const { return NativeStream(stream(rank)); }
  std::vector<Device> devices() const;

  // See Transport.
  absl::Status EnterSideStream(int rank);
  absl::Status LeaveSideStream(int rank);
  absl::Status JoinSideStream(int rank) const;

  /// For the kernels of this rank's call; the transport adds its lookout.
  Watch watch(const Round& round) const;
  bool IsCapturing(int rank) const;
  /// kDeadlineExceeded: a kernel has waited too long, for which rank, in which call and where.
  absl::Status Health() const;
  absl::Status Synchronize(int rank) const;
  /// Queues a kernel that does nothing on every stream: a stream's first kernel starts when the
  /// device is idle (seen on an H100 under CUDA 13.0), and what runs there by then may be waiting
  /// for it.
  absl::Status QueueFirstKernels();
  /// Waits until all streams are idle. kDeadlineExceeded: longer than the group's time-out.
  absl::Status AwaitIdle() const;
  void Abort();
  /// AwaitIdle, and all is usable again.
  absl::Status Reset();
  /// Aborts, and returns when no work is left that uses what the ranks share.
  void Drain();

 private:
  // In host memory that the devices see: a line for each writer.
  struct HostWords {
    alignas(128) std::atomic<std::uint32_t> abort{0};
    WaitReport reports[kMostRanks] = {};
  };

  // A rank's own, and its thread's.
  struct Side {
    static absl::StatusOr<Side> Create(Device device);

    OwnedStream stream;
    // The rank's stream when it was last entered, and its own end when it was last left.
    Event entered;
    Event left;
    bool in_use = false;
  };

  DeviceGroup(absl::Span<const Stream> streams, std::chrono::nanoseconds timeout,
              PinnedMemory words, std::vector<Side> sides);
  Side& side(int rank) { return sides_[static_cast<std::size_t>(rank)]; }
  const Side& side(int rank) const { return sides_[static_cast<std::size_t>(rank)]; }
  cudaStream_t main(int rank) const {
    return NativeStream(streams_[static_cast<std::size_t>(rank)]);
  }

  const std::vector<Stream> streams_;
  const std::chrono::nanoseconds timeout_;
  const PinnedMemory memory_of_words_;
  HostWords* const words_;
  std::vector<Side> sides_;
};

/// A transport over a group of devices: what does not depend on how the data moves.
class DeviceTransport : public Transport {
 public:
  absl::Status EnterSideStream(int rank) override { return group_->EnterSideStream(rank); }
  absl::Status LeaveSideStream(int rank) override { return group_->LeaveSideStream(rank); }
  absl::Status JoinSideStream(int rank) override { return group_->JoinSideStream(rank); }
  bool IsCapturing(int rank) const override { return group_->IsCapturing(rank); }
  absl::Status Health() const override { return group_->Health(); }
  absl::Status Synchronize(int rank) override { return group_->Synchronize(rank); }
  void Abort() override { group_->Abort(); }
  absl::Status Reset() override { return group_->Reset(); }

 protected:
  /// `by_peers`: the operands of a rank are touched by its peers' devices too (see Reach).
  DeviceTransport(std::unique_ptr<DeviceGroup> group, bool by_peers)
      : group_(std::move(group)), reach_(group_->devices(), by_peers) {}

  const std::unique_ptr<DeviceGroup> group_;
  Reach reach_;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
