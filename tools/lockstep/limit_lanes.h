// Streams of several GPUs that work at the same time, driven by one thread.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_LANES_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_LANES_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "lockstep/tools/lockstep/bench.h"
#include "lockstep/tools/lockstep/device_timer.h"

namespace lockstep::tools {

/// Memory of a GPU, or of the host that all GPUs copy from and to without a detour; not zeros.
absl::StatusOr<std::shared_ptr<void>> DeviceMemory(Device device, std::int64_t bytes);
absl::StatusOr<std::shared_ptr<void>> PinnedMemory(std::int64_t bytes);

/// Work that lanes do side by side, each on a stream of its own.
///
///   LimitLanes lanes;
///   LOCKSTEP_RETURN_IF_ERROR(lanes.Add(device, [=](cudaStream_t stream) { return ...; }));
///   LOCKSTEP_ASSIGN_OR_RETURN(const Times times, lanes.Measure());
class LimitLanes {
 public:
  /// Queues one operation; `device` is current.
  using Queue = std::function<cudaError_t(cudaStream_t)>;

  absl::Status Add(Device device, Queue queue);

  /// Microseconds of one operation of the slowest lane, over seven rounds of many back to back.
  absl::StatusOr<Times> Measure();

 private:
  struct Lane {
    Stream stream;
    std::shared_ptr<void> owner;
    DeviceTimer timer;
    Queue queue;
  };

  absl::StatusOr<double> Round(int repeats);

  std::vector<Lane> lanes_;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_LIMIT_LANES_H_
