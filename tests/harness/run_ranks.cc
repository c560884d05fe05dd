#include "lockstep/tests/harness/run_ranks.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "lockstep/tests/harness/stacks.h"

namespace lockstep::testing {
namespace {

// Ends a hang: first by aborting the group, then by ending the process.
class Watchdog {
 public:
  Watchdog(absl::Duration limit, CollectiveBarrier& barrier)
      : limit_(limit), barrier_(barrier), thread_([this] { Watch(); }) {}
  // What it had to do: the stacks of the hang, or nothing.
  std::string Stop() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
    return std::move(stacks_);
  }

 private:
  static constexpr auto kGrace = absl::Seconds(10);

  void Watch() {
    std::unique_lock lock(mutex_);
    if (AwaitDone(lock, limit_)) return;
    stacks_ = StacksOf(getpid());
    barrier_.Abort(absl::AbortedError(
        absl::StrCat("the ranks did not finish within ", absl::FormatDuration(limit_))));
    if (AwaitDone(lock, kGrace)) return;
    std::fprintf(stderr, "the ranks hang, and an abort did not free them\n%s", stacks_.c_str());
    std::abort();
  }
  bool AwaitDone(std::unique_lock<std::mutex>& lock, absl::Duration time) {
    return changed_.wait_for(lock, absl::ToChronoNanoseconds(time), [this] { return done_; });
  }

  const absl::Duration limit_;
  CollectiveBarrier& barrier_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::string stacks_;
  std::thread thread_;
};

}  // namespace

absl::Status RunRanks(const RunRanksOptions& options,
                      absl::FunctionRef<absl::Status(Worker&, Communicator&)> body,
                      std::vector<absl::Status>* each) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.devices = options.devices,
                                                             .world_size = options.world_size}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor, options.barrier));
  std::vector<absl::Status> statuses(static_cast<std::size_t>(options.world_size),
                                     absl::InternalError("the rank threw"));
  Watchdog watchdog(options.limit, *barrier);
  absl::Status status = executor->Run([&](Worker& worker) {
    PerturbedCommunicator comm(barrier->communicator(worker.rank()), options.perturbation);
    return statuses[static_cast<std::size_t>(worker.rank())] = body(worker, comm);
  });
  if (const std::string stacks = watchdog.Stop(); !stacks.empty()) {
    status = absl::DeadlineExceededError(absl::StrCat("the ranks did not finish within ",
                                                      absl::FormatDuration(options.limit),
                                                      "; where they hung:\n", stacks));
  }
  if (each != nullptr) *each = std::move(statuses);
  return status;
}

}  // namespace lockstep::testing
