// The tensor-parallel MLP beside its products alone, and beside itself with NCCL's all-reduce.
#include <cstdio>

#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/device_rounds.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"
#include "lockstep/tools/lockstep/bench/rank_mlp.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

constexpr int kRounds = 7;
// As long as that, an H100 stays below its power limit.
constexpr double kRest = 3;

// Where it runs, and what is measured there.
struct Setting {
  const BenchOptions& options;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
  std::unique_ptr<NcclPeer> nccl;

  bool on_cpu() const { return executor->rank_devices()[0].is_cpu(); }
  const char* mode() const { return on_cpu() ? "host" : options.graph ? "graph" : "eager"; }
};

// Microseconds of the slowest rank, median of the rounds; 0 where it is not measured.
struct MlpRow {
  std::int64_t rows;
  double ours = 0;
  double products = 0;
  double forward_backward = 0;
  double nccl = 0;
  std::int64_t wrong = 0;
};

// The contestants in the order of their numbers.
std::vector<DeviceRounds::Queue> Contestants(const Setting& setting, RankMlp& mlp) {
  std::vector<DeviceRounds::Queue> queues = {[&mlp] { return mlp.Forward().status(); },
                                             [&mlp] { return mlp.QueueProducts(); },
                                             [&mlp] { return mlp.ForwardBackward().status(); }};
  if (setting.nccl != nullptr) {
    queues.emplace_back(
        [&mlp, &nccl = *setting.nccl] { return mlp.ForwardThrough(nccl).status(); });
  }
  return queues;
}

absl::StatusOr<MlpRow> Measure(Setting& setting, std::int64_t rows) {
  const BenchOptions& options = setting.options;
  const int ranks = setting.executor->world_size();
  const int num_contestants = 3 + (setting.nccl != nullptr);
  DeviceRounds rounds(ranks, num_contestants,
                      {.graph = options.graph,
                       .rounds = kRounds,
                       .warmup = options.warmup,
                       .calls = options.iterations,
                       .rest = kRest});
  std::vector<std::int64_t> wrong(static_cast<std::size_t>(ranks));
  LOCKSTEP_RETURN_IF_ERROR(setting.executor->Run([&](Worker& worker) -> absl::Status {
    Communicator& comm = setting.barrier->communicator(worker.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(RankMlp mlp, RankMlp::Create(worker, comm, options.mlp, rows));
    LOCKSTEP_RETURN_IF_ERROR(rounds.Measure(worker, comm, Contestants(setting, mlp)));
    if (!options.check) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(wrong[static_cast<std::size_t>(worker.rank())],
                              mlp.CountWrong(setting.nccl.get()));
    return absl::OkStatus();
  }));
  const auto median = [&](int contestant) { return Summarize(rounds.SlowestRank(contestant)).p50; };
  MlpRow row{.rows = rows, .ours = median(0), .products = median(1), .forward_backward = median(2)};
  if (setting.nccl != nullptr) row.nccl = median(3);
  for (const std::int64_t count : wrong) row.wrong += count;
  return row;
}

std::string GpusOf(const Setting& setting) {
  std::string line = GpuLine(setting.executor->rank_devices());
  if (setting.nccl != nullptr) absl::StrAppend(&line, ", NCCL ", NcclVersion());
  return line;
}

void PrintHeader(const Setting& setting) {
  const MlpBenchOptions& mlp = setting.options.mlp;
  std::printf("# mlp %lld -> %lld -> GELU -> %lld, %s, %d ranks, transport %s, %s\n",
              static_cast<long long>(mlp.hidden), static_cast<long long>(mlp.inner),
              static_cast<long long>(mlp.hidden), std::string(Name(mlp.dtype)).c_str(),
              setting.executor->world_size(), std::string(setting.barrier->transport()).c_str(),
              setting.mode());
  std::printf("# %s\n", MachineLine().c_str());
  if (!setting.on_cpu()) std::printf("# %s\n", GpusOf(setting).c_str());
  std::printf(
      "# median of %d alternating rounds, each with a rest %g times as long, slowest rank; wrong: "
      "further than %.2g of the largest element from the unsharded layers' result\n",
      kRounds, kRest, RankMlp::Tolerance(mlp.dtype));
  std::printf("#%7s %12s %13s %15s %10s %12s %12s %7s\n", "rows", "ours (us)", "products (us)",
              "ours / products", "NCCL (us)", "NCCL / ours", "fwd+bwd (us)", "#wrong");
}

// "N/A" for what was not measured.
void PrintCell(int width, double value) {
  if (value == 0) {
    std::printf(" %*s", width, "N/A");
  } else {
    std::printf(" %*.2f", width, value);
  }
}

void PrintRow(const MlpRow& row, bool checked) {
  std::printf("%8lld", static_cast<long long>(row.rows));
  PrintCell(12, row.ours);
  PrintCell(13, row.products);
  PrintCell(15, row.ours / row.products);
  PrintCell(10, row.nccl);
  PrintCell(12, row.nccl / row.ours);
  PrintCell(12, row.forward_backward);
  std::printf(" %7s\n", checked ? absl::StrCat(row.wrong).c_str() : "N/A");
  std::fflush(stdout);
}

nlohmann::json ToJson(const MlpRow& row, const Setting& setting) {
  nlohmann::json json = {{"rows", row.rows},
                         {"ours_us", row.ours},
                         {"products_us", row.products},
                         {"ours_over_products", row.ours / row.products},
                         {"forward_backward_us", row.forward_backward}};
  if (setting.nccl != nullptr) {
    json["nccl_us"] = row.nccl;
    json["nccl_over_ours"] = row.nccl / row.ours;
  }
  if (setting.options.check) json["wrong"] = row.wrong;
  return json;
}

void PrintJson(const Setting& setting, const nlohmann::json& rows) {
  const MlpBenchOptions& mlp = setting.options.mlp;
  nlohmann::json document = {{"benchmark", "mlp"},
                             {"machine", MachineLine()},
                             {"ranks", setting.executor->world_size()},
                             {"transport", std::string(setting.barrier->transport())},
                             {"mode", setting.mode()},
                             {"type", std::string(Name(mlp.dtype))},
                             {"hidden", mlp.hidden},
                             {"inner", mlp.inner},
                             {"rows", rows}};
  if (!setting.on_cpu()) document["gpus"] = GpusOf(setting);
  std::printf("%s\n", document.dump(2).c_str());
}

absl::Status CheckOptions(const BenchOptions& options, bool on_cpu) {
  if (!IsFloating(options.mlp.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("mlp: -d ", Name(options.mlp.dtype), ": it must be a floating type"));
  }
  if (options.peer == BenchPeer::kNcclSymmetric) {
    return absl::InvalidArgumentError("mlp: --peer=nccl_symmetric is for collectives alone");
  }
  if (!on_cpu || !options.graph) return absl::OkStatus();
  return absl::InvalidArgumentError("--graph: these ranks are on the CPU, and graphs are for GPUs");
}

}  // namespace

absl::Status BenchMlp(const BenchOptions& options) {
  Setting setting{.options = options, .executor{}, .barrier{}, .nccl{}};
  LOCKSTEP_ASSIGN_OR_RETURN(setting.executor, Executor::Create(options.executor));
  LOCKSTEP_RETURN_IF_ERROR(CheckOptions(options, setting.on_cpu()));
  LOCKSTEP_ASSIGN_OR_RETURN(setting.barrier,
                            CollectiveBarrier::Create(*setting.executor, options.barrier));
  if (options.peer != BenchPeer::kNone) {
    LOCKSTEP_ASSIGN_OR_RETURN(setting.nccl,
                              NcclPeer::Create(*setting.executor, /*symmetric=*/false));
  }
  nlohmann::json rows = nlohmann::json::array();
  if (!options.json) PrintHeader(setting);
  std::int64_t wrong = 0;
  for (const std::int64_t count : options.mlp.rows) {
    LOCKSTEP_ASSIGN_OR_RETURN(const MlpRow row, Measure(setting, count));
    wrong += row.wrong;
    if (options.json) {
      rows.push_back(ToJson(row, setting));
    } else {
      PrintRow(row, options.check);
    }
  }
  if (options.json) PrintJson(setting, rows);
  if (wrong == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("mlp: ", wrong, " elements were wrong"));
}

}  // namespace lockstep::tools
