#include "lockstep/tools/lockstep/bench/beside.h"

namespace lockstep::tools {

BusyThreads::BusyThreads(int count) {
  for (int i = 0; i < count; ++i) {
    threads_.emplace_back([this] {
      while (!stop_.load(std::memory_order_relaxed)) {
      }
    });
  }
}

absl::Status AtOnce(int count, absl::FunctionRef<absl::Status(int)> run) {
  std::vector<absl::Status> statuses(static_cast<std::size_t>(count));
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] { statuses[i] = run(i); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) LOCKSTEP_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace lockstep::tools
