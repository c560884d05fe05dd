#include "lockstep/tools/lockstep/bench/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lockstep/tools/lockstep/bench/beside.h"
#include "lockstep/tools/lockstep/bench/collective_data.h"

namespace lockstep::tools {

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

absl::StatusOr<double> TimeEach(int repeats, absl::FunctionRef<absl::Status()> call) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) LOCKSTEP_RETURN_IF_ERROR(call());
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  return took.count() / repeats;
}

const std::vector<const char*> kBenchNames = {
    "all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all",
    "barrier",    "executor",       "startup",    "mlp",       "limits"};

absl::Status Bench(const std::string& name, const BenchOptions& options) {
  const BusyThreads beside(options.busy);
  for (const CollectiveKind kind : kMovingKinds) {
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
      absl::StrCat("bench: \"", name, "\" is not one of ", absl::StrJoin(kBenchNames, ", ")));
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
  constexpr std::int64_t kMax = std::int64_t{1} << 62;
  std::int64_t bytes = 0;
  if (!absl::SimpleAtoi(digits, &bytes) || bytes > kMax >> shift) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", shown, "\" is out of range: sizes are from 0 to ", kMax, " bytes"));
  }
  return bytes << shift;
}

std::vector<std::string> BesideNotes(const BenchOptions& options, const Executor& executor) {
  std::vector<std::string> notes;
  if (options.executor.pin_threads)
    notes.push_back(absl::StrCat("pinning: ", std::string(executor.pinning())));
  if (options.groups > 1)
    notes.push_back(absl::StrCat(options.groups, " groups at once, the slowest"));
  if (options.busy > 0) notes.push_back(absl::StrCat("beside ", options.busy, " busy threads"));
  return notes;
}

}  // namespace lockstep::tools
