// What runs beside a benchmark: other groups that do the same, and threads that compute.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BESIDE_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BESIDE_H_

#include <atomic>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/status.h"

namespace lockstep::tools {

/// Threads that compute without a pause while this object lives.
class BusyThreads {
 public:
  explicit BusyThreads(int count);
  ~BusyThreads() { stop_.store(true, std::memory_order_relaxed); }
  BusyThreads(const BusyThreads&) = delete;
  BusyThreads& operator=(const BusyThreads&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::jthread> threads_;
};

/// Calls run(0) to run(count - 1), each on a thread of its own, all at once. Returns the first
/// failure in that order.
absl::Status AtOnce(int count, absl::FunctionRef<absl::Status(int)> run);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BESIDE_H_
