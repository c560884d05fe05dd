#include "lockstep/tests/harness/run_ranks.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "lockstep/runtime/task_observer.h"
#include "lockstep/tests/harness/stacks.h"

namespace lockstep::testing {
namespace {

// Ends a hang: first by aborting the group and those split off from it, then by ending the process.
class Watchdog {
 public:
  Watchdog(absl::Duration limit, Executor& executor, CollectiveBarrier& barrier)
      : limit_(limit), executor_(executor), barrier_(barrier), thread_([this] { Watch(); }) {}
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
    const absl::Status cause = absl::AbortedError(
        absl::StrCat("the ranks did not finish within ", absl::FormatDuration(limit_)));
    barrier_.Abort(cause);
    // Groups that were split off hear of failed tasks alone; this is nobody's.
    executor_.observers()->ForEach(
        [&](lockstep::internal::TaskObserver& group) { group.OnTaskEnd(-1, cause); });
    if (AwaitDone(lock, kGrace)) return;
    std::fprintf(stderr, "the ranks hang, and an abort did not free them\n%s", stacks_.c_str());
    std::abort();
  }
  bool AwaitDone(std::unique_lock<std::mutex>& lock, absl::Duration time) {
    // Within what a clock can count.
    const absl::Duration counted = std::min(time, absl::Hours(24 * 365));
    return changed_.wait_for(lock, absl::ToChronoNanoseconds(counted), [this] { return done_; });
  }

  const absl::Duration limit_;
  Executor& executor_;
  CollectiveBarrier& barrier_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::string stacks_;
  std::thread thread_;
};

absl::Status CheckOptions(const RunRanksOptions& options) {
  if (options.world_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("RunRanks: world_size is ", options.world_size, "; it must be at least 1"));
  }
  if (options.limit <= absl::ZeroDuration() || options.limit == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("RunRanks: limit is ",
                                                   absl::FormatDuration(options.limit),
                                                   "; it must be finite, and more than 0"));
  }
  const absl::Status usable = CheckPerturbation(options.perturbation, options.world_size);
  if (usable.ok()) return usable;
  return absl::Status(usable.code(), absl::StrCat("RunRanks: perturbation: ", usable.message()));
}

// What the body returns, or that it threw, which goes on.
absl::Status RunBody(absl::FunctionRef<absl::Status(Worker&, Communicator&)> body, Worker& worker,
                     Communicator& comm, absl::Status& returned) {
  try {
    return returned = body(worker, comm);
  } catch (const std::exception& thrown) {
    returned = absl::InternalError(absl::StrCat("the rank threw: ", thrown.what()));
    throw;
  } catch (...) {
    // The unwinding of a thread that ends itself is no exception.
    if (std::current_exception() != nullptr) {
      returned = absl::InternalError("the rank threw something that is no std::exception");
    }
    throw;
  }
}

// The same failure, its text behind the rank.
absl::Status NameRank(int rank, const absl::Status& status) {
  const std::string name = absl::StrCat("rank ", rank);
  // The executor's own failures begin so.
  if (rank < 0 || absl::StartsWith(status.message(), name + " ") ||
      absl::StartsWith(status.message(), name + "'")) {
    return status;
  }
  absl::Status named(status.code(), absl::StrCat(name, ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { named.SetPayload(url, payload); });
  return named;
}

}  // namespace

absl::Status RunRanks(const RunRanksOptions& options,
                      absl::FunctionRef<absl::Status(Worker&, Communicator&)> body,
                      std::vector<absl::Status>* each) {
  if (each != nullptr) each->clear();
  LOCKSTEP_RETURN_IF_ERROR(CheckOptions(options));
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.devices = options.devices,
                                                             .world_size = options.world_size}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor, options.barrier));
  std::vector<absl::Status> returned(static_cast<std::size_t>(options.world_size),
                                     absl::InternalError("the rank's thread ended in its body"));
  Watchdog watchdog(options.limit, *executor, *barrier);
  absl::Status status = executor->Run([&](Worker& worker) {
    PerturbedCommunicator comm(barrier->communicator(worker.rank()), options.perturbation);
    return RunBody(body, worker, comm, returned[static_cast<std::size_t>(worker.rank())]);
  });
  if (!status.ok()) status = NameRank(executor->failed_rank(), status);
  if (const std::string stacks = watchdog.Stop(); !stacks.empty()) {
    status = absl::DeadlineExceededError(absl::StrCat(
        "the ranks did not finish within ", absl::FormatDuration(options.limit),
        "; where they hung:\n", stacks, "what came out in the end: ", status.ToString()));
  }
  if (each != nullptr) *each = std::move(returned);
  return status;
}

}  // namespace lockstep::testing
