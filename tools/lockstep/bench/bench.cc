#include "lockstep/tools/lockstep/bench/bench.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lockstep/runtime/pinning.h"
#include "lockstep/tools/lockstep/bench/beside.h"

namespace lockstep::tools {
namespace {

constexpr CollectiveKind kCollectives[] = {
    CollectiveKind::kAllReduce, CollectiveKind::kReduceScatter, CollectiveKind::kAllGather,
    CollectiveKind::kBroadcast, CollectiveKind::kAllToAll};

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown processor";
}

}  // namespace

double Percentile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

Times Summarize(std::vector<double> microseconds) {
  if (microseconds.empty()) return {};
  std::sort(microseconds.begin(), microseconds.end());
  const double sum = std::accumulate(microseconds.begin(), microseconds.end(), 0.0);
  return {.mean = sum / static_cast<double>(microseconds.size()),
          .min = microseconds.front(),
          .p50 = Percentile(microseconds, 0.5),
          .p99 = Percentile(microseconds, 0.99)};
}

const std::vector<std::string>& BenchNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const CollectiveKind kind : kCollectives) all.emplace_back(Name(kind));
    all.emplace_back("barrier");
    all.emplace_back("executor");
    all.emplace_back("startup");
    all.emplace_back("mlp");
    all.emplace_back("limits");
    return all;
  }();
  return names;
}

absl::Status Bench(const std::string& name, const BenchOptions& options) {
  const BusyThreads beside(options.busy);
  for (const CollectiveKind kind : kCollectives) {
    if (name != Name(kind)) continue;
    if (!options.tune) return BenchCollective(kind, options);
    if (kind == CollectiveKind::kAllReduce) return TuneAllReduce(options);
  }
  if (name == "mlp" && !options.tune) return BenchMlp(options);
  const bool takes_peer = name == "startup" && options.peer == BenchPeer::kNccl;
  if (options.graph || options.tune || (options.peer != BenchPeer::kNone && !takes_peer)) {
    return absl::InvalidArgumentError(
        "bench: --graph and --peer are for collectives and mlp, --peer=nccl for startup too, "
        "--tune for all_reduce");
  }
  if (options.groups > 1 && name != "barrier") {
    return absl::InvalidArgumentError("bench: --groups is for barrier and for collectives");
  }
  if (name == "startup") return BenchStartup(options);
  if (name == "barrier") return BenchBarrier(options);
  if (name == "executor") return BenchExecutor(options);
  if (name == "limits") return BenchLimits(options);
  return absl::InvalidArgumentError(
      absl::StrCat("bench: \"", name, "\" is not one of ", absl::StrJoin(BenchNames(), ", ")));
}

absl::StatusOr<std::int64_t> ParseBytes(absl::string_view text) {
  absl::string_view digits = text;
  int shift = 0;
  if (absl::ConsumeSuffix(&digits, "K") || absl::ConsumeSuffix(&digits, "k")) shift = 10;
  if (absl::ConsumeSuffix(&digits, "M") || absl::ConsumeSuffix(&digits, "m")) shift = 20;
  if (absl::ConsumeSuffix(&digits, "G") || absl::ConsumeSuffix(&digits, "g")) shift = 30;
  const std::string shown = absl::Utf8SafeCEscape(text);
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", shown, "\" is not a size in bytes such as 1024, 4K, 64M or 1G"));
  }
  constexpr std::int64_t kMost = std::int64_t{1} << 62;
  std::int64_t bytes = 0;
  if (!absl::SimpleAtoi(digits, &bytes) || bytes > kMost >> shift) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", shown, "\" is out of range: sizes are from 0 to ", kMost, " bytes"));
  }
  return bytes << shift;
}

std::string BesideLine(const BenchOptions& options, const Executor& executor) {
  std::string lines;
  if (options.executor.pin_threads)
    absl::StrAppend(&lines, "# pinning: ", executor.pinning(), "\n");
  if (options.groups > 1)
    absl::StrAppend(&lines, "# ", options.groups, " groups at once, the slowest\n");
  if (options.busy > 0) absl::StrAppend(&lines, "# beside ", options.busy, " busy threads\n");
  return lines;
}

std::string MachineLine() {
#ifdef NDEBUG
  const char* const build = "optimised build";
#else
  const char* const build = "build with assertions";
#endif
  return absl::StrCat(ProcessorName(), ", ", internal::NumUsableCores(), " usable cores, ", build);
}

}  // namespace lockstep::tools
