#include <algorithm>
#include <cstdio>

#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/beside.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"
#include "lockstep/tools/lockstep/bench/measure_collective.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

// Where a collective runs, and how it is called in the table.
struct Setting {
  CollectiveKind kind;
  const BenchOptions& options;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
  std::unique_ptr<NcclPeer> peer;
  // The groups that do the same at once, each with ranks of its own.
  std::vector<std::unique_ptr<Executor>> other_executors;
  std::vector<std::unique_ptr<CollectiveBarrier>> other_barriers;

  bool on_cpu() const { return executor->rank_devices()[0].is_cpu(); }
  // How calls reach the device, if there is one.
  const char* mode() const { return on_cpu() ? "host" : options.graph ? "graph" : "eager"; }
};

const char* Name(BenchPeer peer) { return peer == BenchPeer::kNccl ? "NCCL" : "NCCL symmetric"; }

// The machine's line, then its GPUs'.
std::string GpusOf(const Setting& setting) {
  std::string line = GpuLine(setting.executor->rank_devices());
  if (setting.peer != nullptr) absl::StrAppend(&line, ", NCCL ", NcclVersion());
  return line;
}

void PrintHeader(const Setting& setting) {
  const BenchOptions& options = setting.options;
  std::printf("# %s, %d ranks, transport %s, %s, %s\n", std::string(Name(setting.kind)).c_str(),
              setting.executor->world_size(), std::string(setting.barrier->transport()).c_str(),
              options.in_place ? "in place" : "out of place", setting.mode());
  std::printf("# %s\n", MachineLine().c_str());
  std::printf("%s", BesideLine(options, *setting.executor).c_str());
  if (!setting.on_cpu()) std::printf("# %s\n", GpusOf(setting).c_str());
  if (setting.peer != nullptr)
    std::printf("# peer: %s, in alternating rounds\n", Name(options.peer));
  std::printf("#%11s %12s %9s %6s %10s %10s %10s %8s %8s %7s", "size (B)", "count", "type", "redop",
              "time (us)", "min (us)", "p99 (us)", "algbw", "busbw", "#wrong");
  if (setting.peer != nullptr) std::printf(" %10s %11s", "peer (us)", "peer / ours");
  std::printf("\n");
}

void PrintRow(const CollectiveRow& row, const Setting& setting) {
  const BenchOptions& options = setting.options;
  std::printf("%12lld %12lld %9s %6s %10.2f %10.2f %10.2f %8.2f %8.2f ",
              static_cast<long long>(row.size.bytes), static_cast<long long>(row.size.count),
              std::string(Name(options.dtype)).c_str(),
              Reduces(setting.kind) ? std::string(Name(options.op)).c_str() : "none", row.times.p50,
              row.times.min, row.times.p99, row.algorithm_gb_per_s, row.bus_gb_per_s);
  if (options.check) {
    std::printf("%7lld", static_cast<long long>(row.wrong));
  } else {
    std::printf("%7s", "N/A");
  }
  if (setting.peer != nullptr) std::printf(" %10.2f %11.2f", row.peer_times.p50, row.ratio);
  std::printf("\n");
  std::fflush(stdout);
}

nlohmann::json ToJson(const CollectiveRow& row, const Setting& setting) {
  nlohmann::json json = {{"size_bytes", row.size.bytes},
                         {"count", row.size.count},
                         {"p50_us", row.times.p50},
                         {"min_us", row.times.min},
                         {"p99_us", row.times.p99},
                         {"mean_us", row.times.mean},
                         {"algbw_gb_s", row.algorithm_gb_per_s},
                         {"busbw_gb_s", row.bus_gb_per_s}};
  if (setting.options.check) json["wrong"] = row.wrong;
  if (setting.peer != nullptr) {
    json["peer_p50_us"] = row.peer_times.p50;
    json["peer_min_us"] = row.peer_times.min;
    json["peer_p99_us"] = row.peer_times.p99;
    json["ratio"] = row.ratio;
  }
  return json;
}

void PrintJson(const Setting& setting, const nlohmann::json& rows) {
  const BenchOptions& options = setting.options;
  nlohmann::json document = {{"benchmark", std::string(Name(setting.kind))},
                             {"machine", MachineLine()},
                             {"ranks", setting.executor->world_size()},
                             {"transport", std::string(setting.barrier->transport())},
                             {"mode", setting.mode()},
                             {"type", std::string(Name(options.dtype))},
                             {"redop", std::string(Name(options.op))},
                             {"in_place", options.in_place},
                             {"groups", options.groups},
                             {"busy", options.busy},
                             {"rows", rows}};
  if (!setting.on_cpu()) document["gpus"] = GpusOf(setting);
  if (setting.peer != nullptr) document["peer"] = Name(options.peer);
  std::printf("%s\n", document.dump(2).c_str());
}

absl::Status CheckMode(const Setting& setting) {
  if (!setting.on_cpu() && setting.options.groups > 1) {
    return absl::InvalidArgumentError("--groups: these ranks are on GPUs, and it is for the CPU");
  }
  if (!setting.on_cpu() || !setting.options.graph) return absl::OkStatus();
  return absl::InvalidArgumentError("--graph: these ranks are on the CPU, and graphs are for GPUs");
}

}  // namespace

namespace {

absl::Status AddGroups(Setting& setting) {
  for (int group = 1; group < setting.options.groups; ++group) {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(setting.options.executor));
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier,
                              CollectiveBarrier::Create(*executor, setting.options.barrier));
    setting.other_executors.push_back(std::move(executor));
    setting.other_barriers.push_back(std::move(barrier));
  }
  return absl::OkStatus();
}

// All groups at once; the slowest counts, and what is wrong in any.
absl::StatusOr<CollectiveRow> MeasureAll(const Setting& setting, std::int64_t bytes) {
  std::vector<CollectiveRow> rows(setting.other_barriers.size() + 1);
  LOCKSTEP_RETURN_IF_ERROR(AtOnce(static_cast<int>(rows.size()), [&](int group) -> absl::Status {
    const auto other = static_cast<std::size_t>(group) - 1;
    const bool first = group == 0;
    LOCKSTEP_ASSIGN_OR_RETURN(
        rows[static_cast<std::size_t>(group)],
        MeasureCollective(setting.kind, setting.options,
                          first ? *setting.executor : *setting.other_executors[other],
                          first ? *setting.barrier : *setting.other_barriers[other],
                          first ? setting.peer.get() : nullptr, bytes));
    return absl::OkStatus();
  }));
  std::int64_t wrong = 0;
  for (const CollectiveRow& row : rows) wrong += row.wrong;
  CollectiveRow slowest = *std::max_element(
      rows.begin(), rows.end(),
      [](const CollectiveRow& a, const CollectiveRow& b) { return a.times.p50 < b.times.p50; });
  slowest.wrong = wrong;
  return slowest;
}

}  // namespace

absl::Status BenchCollective(CollectiveKind kind, const BenchOptions& options) {
  Setting setting{.kind = kind,
                  .options = options,
                  .executor{},
                  .barrier{},
                  .peer{},
                  .other_executors{},
                  .other_barriers{}};
  LOCKSTEP_ASSIGN_OR_RETURN(setting.executor, Executor::Create(options.executor));
  LOCKSTEP_RETURN_IF_ERROR(CheckMode(setting));
  LOCKSTEP_ASSIGN_OR_RETURN(setting.barrier,
                            CollectiveBarrier::Create(*setting.executor, options.barrier));
  if (options.peer != BenchPeer::kNone) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        setting.peer,
        NcclPeer::Create(*setting.executor, options.peer == BenchPeer::kNcclSymmetric));
  }
  LOCKSTEP_RETURN_IF_ERROR(AddGroups(setting));
  nlohmann::json rows = nlohmann::json::array();
  if (!options.json) PrintHeader(setting);
  std::int64_t wrong = 0;
  for (auto bytes = static_cast<double>(options.min_bytes);
       bytes <= static_cast<double>(options.max_bytes);
       bytes = std::max(bytes * options.factor, bytes + 1)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveRow row,
                              MeasureAll(setting, static_cast<std::int64_t>(bytes)));
    wrong += row.wrong;
    if (options.json) {
      rows.push_back(ToJson(row, setting));
    } else {
      PrintRow(row, setting);
    }
  }
  if (options.json) PrintJson(setting, rows);
  if (wrong == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(Name(kind), ": ", wrong, " elements were wrong"));
}

}  // namespace lockstep::tools
