// The tensor-parallel MLP beside its products alone, and beside itself with NCCL's all-reduce.
#include <numeric>

#include "absl/strings/str_format.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/device_rounds.h"
#include "lockstep/tools/lockstep/bench/group.h"
#include "lockstep/tools/lockstep/bench/rank_mlp.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

constexpr int kRounds = 7;
// With a pause this long, an H100 stays below its power limit.
constexpr double kRest = 3;

// The contestants, by number.
std::vector<DeviceRounds::Queue> Contestants(const BenchGroup& group, RankMlp& mlp) {
  std::vector<DeviceRounds::Queue> queues = {[&mlp] { return mlp.Forward().status(); },
                                             [&mlp] { return mlp.QueueProducts(); },
                                             [&mlp] { return mlp.ForwardBackward().status(); },
                                             [&mlp] { return mlp.ForwardInSequence().status(); }};
  if (group.peer != nullptr) {
    queues.emplace_back([&mlp, &nccl = *group.peer] { return mlp.ForwardThrough(nccl).status(); });
  }
  return queues;
}

// "4: 1480 of 1580 us": so many multiprocessors beside the product, and what the sequence took.
std::string Describe(const OverlapChoice& choice) {
  if (choice.sequence_us == 0) return "no";
  return absl::StrFormat("%d%s: %.0f of %.0f us", choice.multiprocessors,
                         choice.equal_parts ? " equal" : "", choice.us, choice.sequence_us);
}

// A row of the report: microseconds of the slowest rank, median of the rounds.
absl::StatusOr<nlohmann::json> Measure(const BenchGroup& group, const BenchOptions& options,
                                       std::int64_t rows) {
  DeviceRounds rounds(group.ranks(), /*contestants=*/group.peer == nullptr ? 4 : 5,
                      {.graph = options.graph,
                       .rounds = kRounds,
                       .warmup = options.warmup,
                       .calls = options.iterations,
                       .rest = kRest});
  std::vector<std::int64_t> wrong(static_cast<std::size_t>(group.ranks()));
  OverlapChoice forward;
  OverlapChoice backward;
  LOCKSTEP_RETURN_IF_ERROR(group.executor->Run([&](Worker& worker) -> absl::Status {
    Communicator& comm = group.barrier->communicator(worker.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(RankMlp mlp, RankMlp::Create(worker, comm, options.mlp, rows));
    LOCKSTEP_RETURN_IF_ERROR(rounds.Measure(worker, comm, Contestants(group, mlp)));
    if (worker.rank() == 0) {
      forward = mlp.forward_overlap();
      backward = mlp.backward_overlap();
    }
    if (!options.check) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(wrong[worker.rank()], mlp.CountWrong(group.peer.get()));
    return absl::OkStatus();
  }));
  const auto median = [&](int contestant) { return Summarize(rounds.SlowestRank(contestant)).p50; };
  const double ours = median(0);
  const double products = median(1);
  nlohmann::json row = {{"rows", rows},
                        {"ours_us", ours},
                        {"products_us", products},
                        {"ours_over_products", ours / products},
                        {"forward_backward_us", median(2)},
                        {"sequence_us", median(3)},
                        {"exposed_us", ours - products},
                        {"forward_overlap", Describe(forward)},
                        {"backward_overlap", Describe(backward)}};
  if (group.peer != nullptr)
    row.update({{"nccl_us", median(4)}, {"nccl_over_ours", median(4) / ours}});
  if (options.check) row["wrong"] = std::accumulate(wrong.begin(), wrong.end(), std::int64_t{0});
  return row;
}

Report MakeReport(const BenchGroup& group, const BenchOptions& options) {
  const MlpBenchOptions& mlp = options.mlp;
  const std::string type(Name(mlp.dtype));
  nlohmann::json document = group.Describe("mlp");
  document.update({{"type", type}, {"hidden", mlp.hidden}, {"inner", mlp.inner}});
  return Report(options.json,
                absl::StrCat("mlp ", mlp.hidden, " -> ", mlp.inner, " -> GELU -> ", mlp.hidden,
                             ", ", type, ", ", group.ToString(), ", ", group.mode),
                {{"rows", 8, "rows"},
                 {"ours (us)", 12, "ours_us"},
                 {"products (us)", 13, "products_us"},
                 {"ours / products", 15, "ours_over_products"},
                 {"NCCL (us)", 10, "nccl_us"},
                 {"NCCL / ours", 12, "nccl_over_ours"},
                 {"sequence (us)", 13, "sequence_us"},
                 {"forward overlap", 22, "forward_overlap"},
                 {"fwd+bwd (us)", 12, "forward_backward_us"},
                 {"backward overlap", 22, "backward_overlap"},
                 {"#wrong", 7, "wrong"}},
                std::move(document),
                {group.gpus(),
                 absl::StrFormat("median of %d alternating rounds, each with a rest %g times as "
                                 "long, slowest rank; wrong: further than %.2g of the largest "
                                 "element from the unsharded layers' result",
                                 kRounds, kRest, RankMlp::Tolerance(mlp.dtype))});
}

absl::Status CheckOptions(const BenchOptions& options) {
  if (!IsFloating(options.mlp.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("mlp: -d ", Name(options.mlp.dtype), ": it must be a floating type"));
  }
  if (options.peer != BenchPeer::kNcclSymmetric) return absl::OkStatus();
  return absl::InvalidArgumentError("mlp: --peer=nccl_symmetric is for collectives alone");
}

}  // namespace

absl::Status BenchMlp(const BenchOptions& options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckOptions(options));
  LOCKSTEP_ASSIGN_OR_RETURN(const BenchGroup group, BenchGroup::Create(options));
  Report report = MakeReport(group, options);
  for (const std::int64_t rows : options.mlp.rows) {
    LOCKSTEP_ASSIGN_OR_RETURN(nlohmann::json row, Measure(group, options, rows));
    report.Add(std::move(row));
  }
  return report.Finish();
}

}  // namespace lockstep::tools
