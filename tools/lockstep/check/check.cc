#include "lockstep/tools/lockstep/check/check.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "lockstep/runtime/pinning.h"
#include "lockstep/tools/lockstep/check/abort_latency.h"
#include "lockstep/tools/lockstep/check/campaign.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

using Json = nlohmann::json;

constexpr int kAborts = 3000;

absl::Status CheckAborts(const CheckOptions& options) {
  struct Case {
    int world_size;
    int cores;
    double bound_us;  // on the 99.9th percentile
  };
  const int cores = internal::NumUsableCores();
  const Case cases[] = {{std::clamp(cores, 2, 8), cores, 1000}, {8, std::min(cores, 2), 20000}};
  Report report(options.json, "from an abort to the return of each rank that waits",
                {{"ranks", 7, "ranks"},
                 {"cores", 6, "cores"},
                 {"samples", 9, "samples"},
                 {"p50 (us)", 9, "p50_us", 1},
                 {"p99 (us)", 9, "p99_us", 1},
                 {"p99.9 (us)", 11, "p999_us", 1},
                 {"max (us)", 9, "max_us", 1},
                 {"bound (us)", 11, "bound_us", 0}},
                {{"check", "aborts"}});
  for (const Case& one : cases) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> latencies,
                              MeasureAbortLatency(one.world_size, one.cores, kAborts));
    report.Add({{"ranks", one.world_size},
                {"cores", one.cores},
                {"samples", latencies.size()},
                {"p50_us", Percentile(latencies, 0.5)},
                {"p99_us", Percentile(latencies, 0.99)},
                {"p999_us", Percentile(latencies, 0.999)},
                {"max_us", latencies.back()},
                {"bound_us", one.bound_us}});
  }
  return report.Finish();
}

Json Row(int world_size, const CampaignResult& result) {
  const auto of_faults = [](const std::array<std::int64_t, kNumMishaps>& by_mishap) {
    const auto* const first = by_mishap.begin() + static_cast<int>(Mishap::kError);
    return std::accumulate(first, by_mishap.end(), std::int64_t{0});
  };
  return {{"ranks", world_size},
          {"episodes", result.episodes},
          {"good_rounds", result.good_rounds},
          {"faults", of_faults(result.happened)},
          {"survived", of_faults(result.survived)},
          {"split_verdicts", result.split_verdicts},
          {"wrong_results", result.wrong_results},
          {"hangs", result.hangs},
          {"leaks", result.leaks},
          {"slow", result.slow}};
}

// All results together, by mishap.
Json ByMishap(const std::vector<CampaignResult>& results) {
  Json rows = Json::array();
  for (std::size_t kind = 0; kind < kNumMishaps; ++kind) {
    std::int64_t happened = 0;
    std::int64_t survived = 0;
    for (const CampaignResult& result : results) {
      happened += result.happened[kind];
      survived += result.survived[kind];
    }
    rows.push_back({{"mishap", std::string(Name(static_cast<Mishap>(kind)))},
                    {"happened", happened},
                    {"survived", survived}});
  }
  return rows;
}

absl::Status CheckCampaign(const CheckOptions& options) {
  Report report(
      options.json,
      absl::StrCat("campaign, seed ", options.seed, ", ", absl::FormatDuration(options.length)),
      {{"ranks", 7, "ranks"},
       {"episodes", 9, "episodes"},
       {"good rounds", 12, "good_rounds"},
       {"faults", 8, "faults"},
       {"survived", 9, "survived"},
       {"splits", 7, "split_verdicts"},
       {"wrong", 6, "wrong_results"},
       {"hangs", 6, "hangs"},
       {"leaks", 6, "leaks"},
       {"slow", 5, "slow"}},
      {{"check", "campaign"}, {"seed", options.seed}});
  std::vector<CampaignResult> results;
  std::string failures;
  for (const int world_size : options.world_sizes) {
    results.push_back(
        RunCampaign({.world_size = world_size,
                     .seed = options.seed,
                     .length = options.length / static_cast<double>(options.world_sizes.size()),
                     .spoil = options.spoil}));
    report.Add(Row(world_size, results.back()));
    if (!results.back().good())
      absl::StrAppend(&failures, "\n", world_size, " ranks: ", results.back().first_failure);
  }
  const Json by_mishap = ByMishap(results);
  for (const Json& row : by_mishap) {
    if (options.json) break;
    absl::PrintF("%20s: %d, survived %d\n", row["mishap"].get<std::string>(),
                 row["happened"].get<std::int64_t>(), row["survived"].get<std::int64_t>());
  }
  report.document()["mishaps"] = by_mishap;
  LOCKSTEP_RETURN_IF_ERROR(report.Finish());
  return failures.empty() ? absl::OkStatus()
                          : absl::DataLossError(absl::StrCat("not all was survived:", failures));
}

}  // namespace

absl::Status Check(const CheckOptions& options) {
  return options.campaign ? CheckCampaign(options) : CheckAborts(options);
}

}  // namespace lockstep::tools
