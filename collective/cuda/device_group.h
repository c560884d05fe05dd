// What all transports on GPUs share: the ranks' streams, the side streams beside them, and the word
// by which kernels are told to give up.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
#define LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/residency.h"
#include "lockstep/collective/device_work.h"
#include "lockstep/collective/transport.h"
#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {

class DeviceGroup final : public DeviceWork {
 public:
  /// Of up to kMaxRanks streams. kResourceExhausted: no pinned memory, or no more streams.
  static absl::StatusOr<std::unique_ptr<DeviceGroup>> Create(absl::Span<const Stream> streams,
                                                             std::chrono::nanoseconds timeout);
  ~DeviceGroup() override;
  DeviceGroup(const DeviceGroup&) = delete;
  DeviceGroup& operator=(const DeviceGroup&) = delete;

  int world_size() const { return static_cast<int>(streams_.size()); }
  Device device(int rank) const { return stream(rank).device(); }
  std::vector<Device> devices() const;
  /// The rank's stream.
  const Stream& stream(int rank) const { return streams_[rank]; }
  /// Where a call of the rank queues its work: there, or beside it.
  Stream stream(int rank, const CollectiveCall& call) const;
  Stream stream(const Round& round) const { return stream(round.rank, round.mine()); }
  cudaStream_t native(int rank, const CollectiveCall& call) const {
    return NativeStream(stream(rank, call));
  }
  cudaStream_t native(const Round& round) const { return NativeStream(stream(round)); }
  /// Takes room for kernels of up to `wanted` blocks that wait for peers (see residency.h). Before
  /// any call. kResourceExhausted: other groups have taken what there is.
  absl::Status TakeRoom(int wanted);
  /// Blocks that such kernels of this round may have on a GPU at once.
  int max_blocks(const Round& round) const;
  /// For the kernels of this rank's call; the transport adds its lookout.
  Watch watch(const Round& round) const;

  /// Records an event behind what a call has queued, and makes a round wait for one.
  absl::Status Record(int rank, const CollectiveCall& call, const Event& event) const;
  absl::Status Await(const Round& round, const Event& event) const;

  absl::Status Begin(int rank, CollectiveCall& call) override;
  absl::Status JoinSideStream(int rank) override;
  /// kDeadlineExceeded: a kernel has waited too long, for which rank, in which call and where.
  absl::Status Health() const override;
  absl::Status Synchronize(int rank) const override;
  void Abort() override;
  absl::Status Reset() override;

  /// Queues a kernel that does nothing on every stream: a stream's first kernel starts when the
  /// device is idle (seen on an H100 under CUDA 13.0), and what runs there by then may be waiting
  /// for it.
  absl::Status QueueFirstKernels();
  /// Waits until all streams are idle. kDeadlineExceeded: longer than the group's time-out.
  absl::Status AwaitIdle() const;
  /// Aborts, and returns when no work is left that uses what the ranks share.
  void Drain();

 private:
  // In host memory that the devices see: a line for each writer.
  struct HostWords {
    alignas(128) std::atomic<std::uint32_t> abort{0};
    WaitReport reports[kMaxRanks] = {};
  };

  // A rank's own, and its thread's.
  struct Side {
    static absl::StatusOr<Side> Create(Device device);

    OwnedStream stream;
    // The rank's stream when a call aside began last, and the side stream when it was joined last.
    Event entered;
    Event left;
  };

  DeviceGroup(absl::Span<const Stream> streams, std::chrono::nanoseconds timeout,
              PinnedMemory words, std::vector<Side> sides);
  cudaStream_t main(int rank) const { return NativeStream(stream(rank)); }
  const Side& side(int rank) const { return sides_[rank]; }
  absl::StatusOr<std::vector<Lane>> Lanes(bool sides) const;
  // Whether kernels may wait on the side streams. Room is taken at the first call aside, so that
  // groups without such calls leave it to others; where there is none, no call is put aside.
  bool TakeSideRoom();

  const std::vector<Stream> streams_;
  const std::chrono::nanoseconds timeout_;
  const PinnedMemory memory_of_words_;
  HostWords* const words_;
  const std::vector<Side> sides_;
  // Without it, no kernel waits for a peer.
  std::unique_ptr<Residency> room_;
  std::once_flag side_room_asked_;
  bool has_side_room_ = false;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
