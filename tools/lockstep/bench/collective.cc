#include <algorithm>

#include "lockstep/tools/lockstep/bench/beside.h"
#include "lockstep/tools/lockstep/bench/group.h"
#include "lockstep/tools/lockstep/bench/measure_collective.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

// Groups that run the benchmark at once, each with its own ranks. The first has the peer.
using Groups = std::vector<BenchGroup>;

absl::StatusOr<Groups> MakeGroups(const BenchOptions& options) {
  Groups groups;
  for (int i = 0; i < options.groups; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(BenchGroup group, BenchGroup::Create(options, /*with_peer=*/i == 0));
    // Its kernels wait for each other, too, and know nothing of ours.
    if (options.groups > 1 && group.peer != nullptr)
      return absl::InvalidArgumentError("--groups: NCCL cannot be measured beside other groups");
    groups.push_back(std::move(group));
  }
  return groups;
}

const char* Name(BenchPeer peer) { return peer == BenchPeer::kNccl ? "NCCL" : "NCCL symmetric"; }

Report MakeReport(CollectiveKind kind, const BenchOptions& options, const BenchGroup& group) {
  const std::string type(Name(options.dtype));
  const std::string op(Name(options.op));
  std::vector<Column> columns = {
      {"size (B)", 12, "size_bytes"}, {"count", 12, "count"},
      {"type", 9, nullptr, 0, type},  {"redop", 6, nullptr, 0, Reduces(kind) ? op : "none"},
      {"time (us)", 10, "p50_us"},    {"min (us)", 10, "min_us"},
      {"p99 (us)", 10, "p99_us"},     {"algbw", 8, "algbw_gb_s"},
      {"busbw", 8, "busbw_gb_s"},     {"#wrong", 7, "wrong"}};
  std::vector<std::string> notes = BesideNotes(options, *group.executor);
  nlohmann::json document = group.Describe(Name(kind));
  document.update({{"type", type},
                   {"redop", op},
                   {"in_place", options.in_place},
                   {"groups", options.groups},
                   {"busy", options.busy}});
  notes.push_back(group.gpus());
  if (group.peer != nullptr) {
    notes.push_back(absl::StrCat("peer: ", Name(options.peer), ", in alternating rounds"));
    columns.insert(columns.end(), {{"peer (us)", 10, "peer_p50_us"}, {"peer / ours", 11, "ratio"}});
    document["peer"] = Name(options.peer);
  }
  const std::string title =
      absl::StrCat(std::string(Name(kind)), ", ", group.ToString(), ", ",
                   options.in_place ? "in place" : "out of place", ", ", group.mode);
  return Report(options.json, title, std::move(columns), std::move(document), notes);
}

nlohmann::json ToJson(const CollectiveRow& row, const BenchOptions& options) {
  nlohmann::json json = {{"size_bytes", row.size.bytes},
                         {"count", row.size.count},
                         {"p50_us", row.times.p50},
                         {"min_us", row.times.min},
                         {"p99_us", row.times.p99},
                         {"mean_us", row.times.mean},
                         {"algbw_gb_s", row.algorithm_gb_per_s},
                         {"busbw_gb_s", row.bus_gb_per_s}};
  if (options.check) json["wrong"] = row.wrong;
  if (options.peer != BenchPeer::kNone) {
    json.update({{"peer_p50_us", row.peer_times.p50},
                 {"peer_min_us", row.peer_times.min},
                 {"peer_p99_us", row.peer_times.p99},
                 {"ratio", row.ratio}});
  }
  return json;
}

// All groups at once: the times of the slowest, and what is wrong in all.
absl::StatusOr<CollectiveRow> MeasureAll(CollectiveKind kind, const BenchOptions& options,
                                         const Groups& groups, std::int64_t bytes) {
  std::vector<CollectiveRow> rows(groups.size());
  LOCKSTEP_RETURN_IF_ERROR(AtOnce(options.groups, [&](int index) -> absl::Status {
    const auto i = static_cast<std::size_t>(index);
    LOCKSTEP_ASSIGN_OR_RETURN(
        rows[i], MeasureCollective(kind, options, *groups[i].executor, *groups[i].barrier,
                                   groups[i].peer.get(), bytes));
    return absl::OkStatus();
  }));
  CollectiveRow slowest = rows[0];
  std::int64_t wrong = 0;
  for (const CollectiveRow& row : rows) {
    wrong += row.wrong;
    if (row.times.p50 > slowest.times.p50) slowest = row;
  }
  slowest.wrong = wrong;
  return slowest;
}

}  // namespace

absl::Status BenchCollective(CollectiveKind kind, const BenchOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Groups groups, MakeGroups(options));
  Report report = MakeReport(kind, options, groups[0]);
  for (auto bytes = static_cast<double>(options.min_bytes);
       bytes <= static_cast<double>(options.max_bytes);
       bytes = std::max(bytes * options.factor, bytes + 1)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveRow row,
                              MeasureAll(kind, options, groups, static_cast<std::int64_t>(bytes)));
    report.Add(ToJson(row, options));
  }
  return report.Finish();
}

}  // namespace lockstep::tools
