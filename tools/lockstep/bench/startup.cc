// From nothing to a first sum: how long a host waits until its ranks can work.
#include <algorithm>
#include <chrono>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/report.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;

// More starts after the first.
constexpr int kRounds = 5;
constexpr std::int64_t kCount = 256;

// Milliseconds of each start, the first of which finds nothing loaded.
struct Step {
  std::string name;
  std::vector<double> milliseconds;

  double first() const { return milliseconds.front(); }
  double later() const { return Summarize({milliseconds.begin() + 1, milliseconds.end()}).p50; }
};

class Stopwatch {
 public:
  void Lap(Step& step) {
    const Clock::time_point now = Clock::now();
    step.milliseconds.push_back(std::chrono::duration<double, std::milli>(now - start_).count());
    start_ = now;
  }

 private:
  Clock::time_point start_ = Clock::now();
};

// One sum over all ranks, done on return, and looked at.
absl::Status SumOnce(Executor& executor,
                     absl::FunctionRef<absl::Status(Worker&, const Tensor&)> sum) {
  return executor.Run([&](Worker& worker) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, worker.Empty({kCount}, DType::kFloat32));
    std::vector<float> values(kCount, static_cast<float>(worker.rank() + 1));
    const Tensor on_host = Tensor::View(values.data(), {kCount}, DType::kFloat32);
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker, on_host, tensor));
    LOCKSTEP_RETURN_IF_ERROR(sum(worker, tensor));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker, tensor, on_host));
    const int ranks = worker.world_size();
    const auto expected = static_cast<float>(ranks * (ranks + 1) / 2);
    if (std::all_of(values.begin(), values.end(), [&](float v) { return v == expected; }))
      return absl::OkStatus();
    return absl::DataLossError("startup: the first sum was wrong");
  });
}

struct Steps {
  Step executor{"Executor::Create", {}};
  Step barrier{"CollectiveBarrier::Create", {}};
  Step sum{"first all_reduce", {}};
  Step nccl{"NCCL's communicators", {}};
  Step nccl_sum{"NCCL's first all-reduce", {}};

  std::vector<const Step*> measured() const {
    std::vector<const Step*> all = {&executor, &barrier, &sum};
    if (!nccl.milliseconds.empty()) all.insert(all.end(), {&nccl, &nccl_sum});
    return all;
  }
};

absl::Status StartNccl(Executor& executor, Steps& steps) {
  Stopwatch watch;
  LOCKSTEP_ASSIGN_OR_RETURN(auto nccl, NcclPeer::Create(executor, /*symmetric=*/false));
  watch.Lap(steps.nccl);
  LOCKSTEP_RETURN_IF_ERROR(SumOnce(executor, [&](Worker& worker, const Tensor& tensor) {
    return nccl->Queue(worker, CollectiveKind::kAllReduce, ReduceOp::kSum, tensor, tensor);
  }));
  watch.Lap(steps.nccl_sum);
  return absl::OkStatus();
}

struct Started {
  int ranks;
  std::string transport;
};

absl::StatusOr<Started> StartOnce(const BenchOptions& options, Steps& steps) {
  Stopwatch watch;
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  watch.Lap(steps.executor);
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor, options.barrier));
  watch.Lap(steps.barrier);
  LOCKSTEP_RETURN_IF_ERROR(
      SumOnce(*executor, [&](Worker& worker, const Tensor& tensor) -> absl::Status {
        LOCKSTEP_RETURN_IF_ERROR(barrier->communicator(worker.rank()).AllReduce(tensor, tensor));
        if (options.spoil) options.spoil(worker.rank(), tensor);
        return absl::OkStatus();
      }));
  watch.Lap(steps.sum);
  if (options.peer != BenchPeer::kNone) LOCKSTEP_RETURN_IF_ERROR(StartNccl(*executor, steps));
  return Started{executor->world_size(), std::string(barrier->transport())};
}

}  // namespace

absl::Status BenchStartup(const BenchOptions& options) {
  Steps steps;
  Started group;
  for (int round = 0; round < 1 + kRounds; ++round) {
    LOCKSTEP_ASSIGN_OR_RETURN(group, StartOnce(options, steps));
  }
  Report report(
      options.json, absl::StrCat("startup, ", group.ranks, " ranks, transport ", group.transport),
      {{"", 28, "name"}, {"first (ms)", 12, "first_ms", 3}, {"later (ms)", 12, "later_ms", 3}},
      {{"benchmark", "startup"}, {"ranks", group.ranks}, {"transport", group.transport}},
      {absl::StrCat("later: median of ", kRounds, " more starts in the same process")});
  for (const Step* step : steps.measured())
    report.Add({{"name", step->name}, {"first_ms", step->first()}, {"later_ms", step->later()}});
  return report.Finish();
}

}  // namespace lockstep::tools
