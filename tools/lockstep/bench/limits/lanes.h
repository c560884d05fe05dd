// Streams of several GPUs that work at the same time, driven by one thread.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_LANES_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_LANES_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"

namespace lockstep::tools {

/// Memory of a GPU, or of the host that all GPUs copy from and to without a detour; not zeros.
absl::StatusOr<std::shared_ptr<void>> DeviceMemory(Device device, std::int64_t bytes);
absl::StatusOr<std::shared_ptr<void>> PinnedMemory(Device device, std::int64_t bytes);

/// How long is measured: so many rounds of about so long. Lanes start some microseconds after each
/// other, which must not count.
struct LimitRounds {
  int rounds = 7;
  double microseconds = 8e3;
  /// Operations of a round at least, and of the two that come before and do not count.
  int least = 5;
};
/// For those who wait for the answer: some milliseconds in all.
inline constexpr LimitRounds kFewRounds = {.rounds = 3, .microseconds = 1e3, .least = 1};

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

  /// Microseconds of one operation of the slowest lane, over rounds of many back to back.
  absl::StatusOr<Times> Measure(const LimitRounds& how = {});

  /// The same of several, which take turns.
  static absl::StatusOr<std::vector<Times>> MeasureInTurns(
      absl::Span<LimitLanes* const> contestants, const LimitRounds& how = {});

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

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_LANES_H_
