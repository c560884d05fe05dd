#include "lockstep/tools/lockstep/check/abort_latency.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/match.h"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxDelayMicroseconds = 500;

// Threads made while this lives share `cores` cores.
class CoreLimit {
 public:
  explicit CoreLimit(int cores) {
    if (cores == 0 || sched_getaffinity(0, sizeof(before_), &before_) != 0) return;
    cpu_set_t few;
    CPU_ZERO(&few);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&few) < cores; ++core) {
      if (CPU_ISSET(core, &before_)) CPU_SET(core, &few);
    }
    limited_ = sched_setaffinity(0, sizeof(few), &few) == 0;
  }
  ~CoreLimit() {
    if (limited_) sched_setaffinity(0, sizeof(before_), &before_);
  }
  CoreLimit(const CoreLimit&) = delete;
  CoreLimit& operator=(const CoreLimit&) = delete;

 private:
  cpu_set_t before_;
  bool limited_ = false;
};

constexpr char kMeasured[] = "aborted to be measured";

}  // namespace

void AbortOnce(CollectiveBarrier& barrier) { barrier.Abort(absl::CancelledError(kMeasured)); }

absl::StatusOr<std::vector<double>> MeasureAbortLatency(
    int world_size, int cores, int aborts, const std::function<void(CollectiveBarrier&)>& abort) {
  const CoreLimit limit(cores);
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto executor, Executor::Create({.devices = {Device::Cpu()}, .world_size = world_size}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier,
                            CollectiveBarrier::Create(*executor, {.timeout = absl::Seconds(30)}));
  const int waiters = world_size - 1;
  std::mt19937_64 random(1);
  std::vector<double> microseconds(static_cast<std::size_t>(waiters));
  std::vector<double> all;
  for (int i = 0; i < aborts; ++i) {
    const std::chrono::microseconds delay(random() % kMaxDelayMicroseconds);
    std::atomic<Clock::time_point> aborted = Clock::time_point();
    LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker& worker) {
      if (worker.rank() == waiters) {
        std::this_thread::sleep_for(delay);
        aborted.store(Clock::now(), std::memory_order_relaxed);
        abort(*barrier);
        return absl::OkStatus();
      }
      const Clock::time_point called = Clock::now();
      const absl::Status status = barrier->communicator(worker.rank()).Barrier();
      const auto took = Clock::now() - std::max(called, aborted.load(std::memory_order_relaxed));
      microseconds[worker.rank()] = std::chrono::duration<double, std::micro>(took).count();
      if (absl::StrContains(status.message(), kMeasured)) return absl::OkStatus();
      return absl::InternalError(absl::StrCat("rank ", worker.rank(),
                                              " waited in a barrier that was aborted, and got ",
                                              status.ToString()));
    }));
    all.insert(all.end(), microseconds.begin(), microseconds.end());
    LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());
  }
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace lockstep::tools
