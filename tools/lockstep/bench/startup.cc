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

// In the order in which they come; the last two with NCCL alone.
constexpr const char* kSteps[] = {"Executor::Create", "CollectiveBarrier::Create",
                                  "first all_reduce", "NCCL's communicators",
                                  "NCCL's first all-reduce"};

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

struct Started {
  int ranks;
  std::string transport;
  std::vector<double> milliseconds;  // of each of kSteps
};

absl::StatusOr<Started> StartOnce(const BenchOptions& options) {
  std::vector<double> milliseconds;
  Clock::time_point start = Clock::now();
  const auto lap = [&] {
    const Clock::time_point now = Clock::now();
    milliseconds.push_back(std::chrono::duration<double, std::milli>(now - start).count());
    start = now;
  };
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  lap();
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor, options.barrier));
  lap();
  LOCKSTEP_RETURN_IF_ERROR(
      SumOnce(*executor, [&](Worker& worker, const Tensor& tensor) -> absl::Status {
        LOCKSTEP_RETURN_IF_ERROR(barrier->communicator(worker.rank()).AllReduce(tensor, tensor));
        if (options.spoil) options.spoil(worker.rank(), tensor);
        return absl::OkStatus();
      }));
  lap();
  if (options.peer != BenchPeer::kNone) {
    LOCKSTEP_ASSIGN_OR_RETURN(auto nccl, NcclPeer::Create(*executor, /*symmetric=*/false));
    lap();
    LOCKSTEP_RETURN_IF_ERROR(SumOnce(*executor, [&](Worker& worker, const Tensor& tensor) {
      return nccl->Queue(worker, CollectiveKind::kAllReduce, ReduceOp::kSum, tensor, tensor);
    }));
    lap();
  }
  return Started{executor->world_size(), std::string(barrier->transport()), milliseconds};
}

}  // namespace

absl::Status BenchStartup(const BenchOptions& options) {
  // The first finds nothing loaded.
  LOCKSTEP_ASSIGN_OR_RETURN(const Started first, StartOnce(options));
  std::vector<std::vector<double>> later(first.milliseconds.size());
  for (int round = 0; round < kRounds; ++round) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Started again, StartOnce(options));
    for (std::size_t i = 0; i < later.size(); ++i) later[i].push_back(again.milliseconds[i]);
  }
  Report report(
      options.json, absl::StrCat("startup, ", first.ranks, " ranks, transport ", first.transport),
      {{"", 28, "name"}, {"first (ms)", 12, "first_ms", 3}, {"later (ms)", 12, "later_ms", 3}},
      {{"benchmark", "startup"}, {"ranks", first.ranks}, {"transport", first.transport}},
      {absl::StrCat("later: median of ", kRounds, " more starts in the same process")});
  for (std::size_t i = 0; i < later.size(); ++i) {
    report.Add({{"name", kSteps[i]},
                {"first_ms", first.milliseconds[i]},
                {"later_ms", Summarize(later[i]).p50}});
  }
  return report.Finish();
}

}  // namespace lockstep::tools
