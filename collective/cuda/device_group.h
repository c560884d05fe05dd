// What all transports on GPUs share: the ranks' streams, the word by which kernels are told to give
// up, and the end of everything.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
#define LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_

#include <atomic>
#include <vector>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/transport.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/worker_state.h"

namespace lockstep::internal::cuda {

class DeviceGroup {
 public:
  /// kResourceExhausted: no pinned memory.
  static absl::StatusOr<std::unique_ptr<DeviceGroup>> Create(absl::Span<const Stream> streams,
                                                             std::chrono::nanoseconds timeout);
  ~DeviceGroup();
  DeviceGroup(const DeviceGroup&) = delete;
  DeviceGroup& operator=(const DeviceGroup&) = delete;

  int num_ranks() const { return static_cast<int>(streams_.size()); }
  const Stream& stream(int rank) const { return streams_[static_cast<std::size_t>(rank)]; }
  Device device(int rank) const { return stream(rank).device(); }
  cudaStream_t native(int rank) const { return NativeStream(stream(rank)); }

  /// For kernels of `rank`; the transport adds its lookout.
  Watch watch(int rank) const;
  bool IsCapturing(int rank) const;
  /// kDeadlineExceeded: a kernel has waited too long, for which rank and where.
  absl::Status Health() const;
  absl::Status Synchronize(int rank) const;
  void Abort();
  /// Waits for all streams, for a bounded time, and makes them usable again.
  absl::Status Reset();

 private:
  // In host memory that the devices see: a line for each word.
  struct alignas(128) Word {
    std::atomic<std::uint32_t> value;
  };

  DeviceGroup(absl::Span<const Stream> streams, std::chrono::nanoseconds timeout)
      : streams_(streams.begin(), streams.end()), timeout_(timeout) {}

  const std::vector<Stream> streams_;
  const std::chrono::nanoseconds timeout_;
  // The abort word, then each rank's report.
  Word* words_ = nullptr;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_DEVICE_GROUP_H_
