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

/// Memory of a GPU, or pinned memory of the host that all GPUs copy from and to directly; filled
/// with a pattern.
absl::StatusOr<std::shared_ptr<void>> DeviceMemory(Device device, std::int64_t bytes);
absl::StatusOr<std::shared_ptr<void>> PinnedMemory(Device device, std::int64_t bytes);

/// How long to measure: this many rounds of about this length. Lanes start a few microseconds
/// apart, which must not matter.
struct LimitRounds {
  int rounds = 7;
  double microseconds = 8e3;
  /// The fewest operations of a round, and the number in the two uncounted ones before.
  int least = 5;
};
/// For callers that wait for the answer: a few milliseconds in all.
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
