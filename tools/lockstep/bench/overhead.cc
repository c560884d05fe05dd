// What a meeting and a hand-over cost beside the standard library's and the system's, in
// alternating rounds of one run.
#include <pthread.h>

#include <algorithm>
#include <barrier>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "lockstep/tests/harness/perturbed_communicator.h"
#include "lockstep/tools/lockstep/bench/beside.h"
#include "lockstep/tools/lockstep/bench/group.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

constexpr int kRounds = 7;

struct Contestant {
  std::string name;
  // Microseconds of one operation, over that many of them.
  std::function<absl::StatusOr<double>(int)> measure;
};

// The contestants take turns, round after round; the first is ours.
absl::Status Compete(const std::string& title, const BenchOptions& options,
                     const Executor& executor, const std::vector<Contestant>& contestants) {
  std::vector<std::vector<double>> microseconds(contestants.size());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const double probe, contestants[i].measure(200));
      const int repeats = options.iterations > 0
                              ? options.iterations
                              : static_cast<int>(std::clamp(1e5 / probe, 200.0, 1e6));
      LOCKSTEP_ASSIGN_OR_RETURN(const double time, contestants[i].measure(repeats));
      microseconds[i].push_back(time);
    }
  }
  const int ranks = executor.world_size();
  Report report(
      options.json,
      absl::StrCat(title, ", ", ranks, " ranks, median of ", kRounds, " alternating rounds"),
      {{"", 28, "name"},
       {"time (us)", 10, "p50_us", 3},
       {"min (us)", 10, "min_us", 3},
       {"time / ours", 14, "ratio"}},
      {{"benchmark", title}, {"ranks", ranks}, {"groups", options.groups}, {"busy", options.busy}},
      BesideNotes(options, executor));
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    const Times times = Summarize(microseconds[i]);
    report.Add({{"name", contestants[i].name},
                {"p50_us", times.p50},
                {"min_us", times.min},
                {"ratio", times.p50 / Summarize(microseconds[0]).p50}});
  }
  return report.Finish();
}

// Times `meet(rank)` on all ranks of the executor, so that every barrier is met by the same
// threads.
absl::StatusOr<double> TimeMeetings(Executor& executor, int repeats,
                                    const std::function<absl::Status(int)>& meet) {
  std::vector<double> microseconds(static_cast<std::size_t>(executor.world_size()));
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
    const auto meet_here = [&] { return meet(worker.rank()); };
    LOCKSTEP_RETURN_IF_ERROR(meet_here());
    LOCKSTEP_ASSIGN_OR_RETURN(microseconds[worker.rank()], TimeEach(repeats, meet_here));
    return absl::OkStatus();
  }));
  return *std::max_element(microseconds.begin(), microseconds.end());
}

// The usual thread pool: a mutex, and a condition variable for either direction.
class ConditionVariablePool {
 public:
  explicit ConditionVariablePool(int num_threads) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Loop(); });
  }
  ~ConditionVariablePool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
  }
  void Run() {
    std::unique_lock lock(mutex_);
    pending_ = threads_.size();
    ++work_;
    start_.notify_all();
    done_.wait(lock, [this] { return pending_ == 0; });
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    for (std::uint64_t seen = 0;; ++seen) {
      start_.wait(lock, [&] { return work_ != seen || stopping_; });
      if (stopping_) return;
      lock.unlock();
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  std::uint64_t work_ = 0;
  std::size_t pending_ = 0;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

// One group's ranks, and everything at which they can meet.
struct BarrierGroup {
  explicit BarrierGroup(BenchGroup group) : ours(std::move(group)), standard(ours.ranks()) {
    for (int rank = 0; rank < ours.ranks(); ++rank) {
      unperturbed.push_back(std::make_unique<testing::PerturbedCommunicator>(
          ours.barrier->communicator(rank), testing::Perturbation()));
    }
    pthread_barrier_init(&posix, nullptr, static_cast<unsigned>(ours.ranks()));
  }
  ~BarrierGroup() { pthread_barrier_destroy(&posix); }
  BarrierGroup(const BarrierGroup&) = delete;
  BarrierGroup& operator=(const BarrierGroup&) = delete;

  BenchGroup ours;
  std::vector<std::unique_ptr<testing::PerturbedCommunicator>> unperturbed;
  std::barrier<> standard;
  pthread_barrier_t posix;
};

using Groups = std::vector<std::unique_ptr<BarrierGroup>>;

// All groups at once, the same number of times; the slowest counts.
Contestant MakeContestant(std::string name, const Groups& groups,
                          std::function<absl::Status(BarrierGroup&, int)> meet) {
  return {std::move(name),
          [&groups, meet = std::move(meet)](int repeats) -> absl::StatusOr<double> {
            std::vector<double> microseconds(groups.size());
            LOCKSTEP_RETURN_IF_ERROR(AtOnce(static_cast<int>(groups.size()), [&](int index) {
              BarrierGroup& group = *groups[index];
              const auto time = TimeMeetings(*group.ours.executor, repeats,
                                             [&](int rank) { return meet(group, rank); });
              if (time.ok()) microseconds[index] = *time;
              return time.status();
            }));
            return *std::max_element(microseconds.begin(), microseconds.end());
          }};
}

}  // namespace

absl::Status BenchBarrier(const BenchOptions& options) {
  Groups groups;
  for (int i = 0; i < options.groups; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(BenchGroup group, BenchGroup::Create(options));
    groups.push_back(std::make_unique<BarrierGroup>(std::move(group)));
  }
  return Compete("barrier", options, *groups[0]->ours.executor,
                 {MakeContestant("Communicator::Barrier", groups,
                                 [](BarrierGroup& group, int rank) {
                                   return group.ours.barrier->communicator(rank).Barrier();
                                 }),
                  MakeContestant("PerturbedCommunicator, idle", groups,
                                 [](BarrierGroup& group, int rank) {
                                   return group.unperturbed[rank]->Barrier();
                                 }),
                  MakeContestant("std::barrier", groups,
                                 [](BarrierGroup& group, int) {
                                   group.standard.arrive_and_wait();
                                   return absl::OkStatus();
                                 }),
                  MakeContestant("pthread_barrier", groups, [](BarrierGroup& group, int) {
                    pthread_barrier_wait(&group.posix);
                    return absl::OkStatus();
                  })});
}

absl::Status BenchExecutor(const BenchOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  ConditionVariablePool pool(executor->world_size());
  return Compete("executor", options, *executor,
                 {{"Executor::Run",
                   [&](int repeats) {
                     return TimeEach(repeats, [&] {
                       return executor->Run([](Worker&) { return absl::OkStatus(); });
                     });
                   }},
                  {"condition-variable pool", [&](int repeats) {
                     return TimeEach(repeats, [&] {
                       pool.Run();
                       return absl::OkStatus();
                     });
                   }}});
}

}  // namespace lockstep::tools
