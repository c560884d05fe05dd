#include "lockstep/tools/lockstep/check/check.h"

#include <algorithm>
#include <cstdio>

#include "lockstep/runtime/pinning.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/check/abort_latency.h"
#include "lockstep/tools/lockstep/check/campaign.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

using Json = nlohmann::json;

constexpr int kAborts = 3000;

void Print(const CheckOptions& options, const Json& document) {
  if (options.json) std::printf("%s\n", document.dump(2).c_str());
}

absl::Status CheckAborts(const CheckOptions& options) {
  struct Case {
    int world_size;
    int cores;
    double bound_us;  // on the 99.9th percentile
  };
  const int cores = internal::NumUsableCores();
  const Case cases[] = {{std::clamp(cores, 2, 8), cores, 1000}, {8, std::min(cores, 2), 20000}};
  Json rows = Json::array();
  if (!options.json) {
    std::printf("# from an abort to the return of each rank that waits\n# %s\n",
                MachineLine().c_str());
    std::printf("#%6s %6s %9s %9s %9s %11s %9s %11s\n", "ranks", "cores", "samples", "p50 (us)",
                "p99 (us)", "p99.9 (us)", "max (us)", "bound (us)");
  }
  for (const Case& one : cases) {
    LOCKSTEP_ASSIGN_OR_RETURN(const AbortLatency latency,
                              MeasureAbortLatency(one.world_size, one.cores, kAborts));
    rows.push_back({{"ranks", one.world_size},
                    {"cores", one.cores},
                    {"samples", latency.samples},
                    {"p50_us", latency.p50},
                    {"p99_us", latency.p99},
                    {"p999_us", latency.p999},
                    {"max_us", latency.max},
                    {"bound_us", one.bound_us}});
    if (!options.json) {
      std::printf("%7d %6d %9lld %9.1f %9.1f %11.1f %9.1f %11.0f\n", one.world_size, one.cores,
                  static_cast<long long>(latency.samples), latency.p50, latency.p99, latency.p999,
                  latency.max, one.bound_us);
    }
  }
  Print(options, {{"check", "aborts"}, {"machine", MachineLine()}, {"rows", rows}});
  return absl::OkStatus();
}

Json Row(int world_size, const CampaignResult& result) {
  std::int64_t survived = 0;
  std::int64_t happened = 0;
  for (int kind = static_cast<int>(Mishap::kError); kind < kNumMishaps; ++kind) {
    happened += result.happened[static_cast<std::size_t>(kind)];
    survived += result.survived[static_cast<std::size_t>(kind)];
  }
  return {{"ranks", world_size},
          {"episodes", result.episodes},
          {"good_rounds", result.good_rounds},
          {"faults", happened},
          {"survived", survived},
          {"split_verdicts", result.split_verdicts},
          {"wrong_results", result.wrong_results},
          {"hangs", result.hangs},
          {"leaks", result.leaks},
          {"slow", result.slow}};
}

void PrintRow(const Json& row) {
  for (const auto& [name, width] : {std::pair("ranks", 7),
                                    {"episodes", 9},
                                    {"good_rounds", 12},
                                    {"faults", 8},
                                    {"survived", 9},
                                    {"split_verdicts", 7},
                                    {"wrong_results", 6},
                                    {"hangs", 6},
                                    {"leaks", 6},
                                    {"slow", 5}}) {
    std::printf("%*lld ", width, row[name].get<long long>());
  }
  std::printf("\n");
  std::fflush(stdout);
}

// What happened to all of them, by what it was.
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
  if (!options.json) {
    std::printf("# campaign, seed %llu, %s\n# %s\n", static_cast<unsigned long long>(options.seed),
                absl::FormatDuration(options.length).c_str(), MachineLine().c_str());
    std::printf("#%6s %9s %12s %8s %9s %7s %6s %6s %6s %5s\n", "ranks", "episodes", "good rounds",
                "faults", "survived", "splits", "wrong", "hangs", "leaks", "slow");
  }
  Json rows = Json::array();
  std::vector<CampaignResult> results;
  std::string failures;
  for (const int world_size : options.world_sizes) {
    results.push_back(
        RunCampaign({.world_size = world_size,
                     .seed = options.seed,
                     .length = options.length / static_cast<double>(options.world_sizes.size()),
                     .spoil = options.spoil}));
    rows.push_back(Row(world_size, results.back()));
    if (!options.json) PrintRow(rows.back());
    if (!results.back().good())
      absl::StrAppend(&failures, "\n", world_size, " ranks: ", results.back().first_failure);
  }
  const Json by_mishap = ByMishap(results);
  for (const Json& row : by_mishap) {
    if (options.json) break;
    std::printf("%20s: %lld, survived %lld\n", row["mishap"].get<std::string>().c_str(),
                row["happened"].get<long long>(), row["survived"].get<long long>());
  }
  Print(options, {{"check", "campaign"},
                  {"machine", MachineLine()},
                  {"seed", options.seed},
                  {"rows", rows},
                  {"mishaps", by_mishap}});
  return failures.empty() ? absl::OkStatus()
                          : absl::DataLossError(absl::StrCat("not all was survived:", failures));
}

}  // namespace

absl::Status Check(const CheckOptions& options) {
  return options.campaign ? CheckCampaign(options) : CheckAborts(options);
}

}  // namespace lockstep::tools
