// Searches the settings of the all-reduce by measuring them, in graphs.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"
#include "lockstep/tools/lockstep/bench/measure_collective.h"

namespace lockstep::tools {
namespace {

constexpr std::int64_t kKilobyte = 1 << 10;
constexpr std::int64_t kMegabyte = 1 << 20;
// Above this, lines are not worth trying: half of what they carry is payload.
constexpr std::int64_t kMaxLinesBytes = 16 * kMegabyte;

class Tuner {
 public:
  Tuner(Executor& executor, BenchOptions options)
      : executor_(executor), options_(std::move(options)) {
    options_.graph = true;
    options_.check = false;
    options_.barrier.transport = TransportKind::kPeer;
  }

  // Median microseconds at each size.
  absl::StatusOr<std::vector<double>> Measure(const AllReduceTuning& tuning,
                                              const std::vector<std::int64_t>& sizes) {
    options_.barrier.tuning = tuning;
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(executor_, options_.barrier));
    absl::PrintF("# %9d %6d %6d %6d ", tuning.max_lines_bytes, tuning.lines_blocks,
                 tuning.lines_threads, tuning.push_blocks);
    std::vector<double> times;
    for (const std::int64_t bytes : sizes) {
      LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveRow row,
                                MeasureCollective(CollectiveKind::kAllReduce, options_, executor_,
                                                  *barrier, nullptr, bytes));
      times.push_back(row.times.p50);
      absl::PrintF(" %9.2f", row.times.p50);
      std::fflush(stdout);
    }
    absl::PrintF("\n");
    return times;
  }

  // The candidate whose times have the smallest geometric mean: each size counts alike.
  absl::StatusOr<AllReduceTuning> Best(const std::vector<AllReduceTuning>& candidates,
                                       const std::vector<std::int64_t>& sizes) {
    absl::PrintF("# %9s %6s %6s %6s  us at", "lines up", "blocks", "of", "push");
    for (const std::int64_t bytes : sizes) absl::PrintF(" %d", bytes);
    absl::PrintF("\n");
    AllReduceTuning best = candidates[0];
    double least = HUGE_VAL;
    for (const AllReduceTuning& candidate : candidates) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> times, Measure(candidate, sizes));
      double logarithms = 0;
      for (const double time : times) logarithms += std::log(time);
      if (logarithms >= least) continue;
      least = logarithms;
      best = candidate;
    }
    return best;
  }

  // The largest size from which on lines are slower than tiles at every larger one.
  absl::StatusOr<std::int64_t> Crossover(AllReduceTuning tuning) {
    std::vector<std::int64_t> sizes;
    for (std::int64_t bytes = 64 * kKilobyte; bytes <= kMaxLinesBytes; bytes *= 2)
      sizes.push_back(bytes);
    tuning.max_lines_bytes = kMaxLinesBytes;
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> lines, Measure(tuning, sizes));
    tuning.max_lines_bytes = 0;
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> push, Measure(tuning, sizes));
    std::size_t at = sizes.size();
    while (at > 0 && lines[at - 1] > push[at - 1]) --at;
    return at == 0 ? 0 : sizes[at - 1];
  }

 private:
  Executor& executor_;
  BenchOptions options_;
};

std::vector<AllReduceTuning> LinesCandidates() {
  std::vector<AllReduceTuning> candidates;
  for (const int threads : {128, 256, 512}) {
    for (const int blocks : {66, 132, 264}) {
      candidates.push_back(
          {.max_lines_bytes = kMaxLinesBytes, .lines_blocks = blocks, .lines_threads = threads});
    }
  }
  return candidates;
}

std::vector<AllReduceTuning> PushCandidates() {
  std::vector<AllReduceTuning> candidates;
  for (const int blocks : {32, 64, 96, 132})
    candidates.push_back({.max_lines_bytes = 0, .push_blocks = blocks});
  return candidates;
}

}  // namespace

absl::Status TuneAllReduce(const BenchOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  if (executor->rank_devices()[0].is_cpu() || executor->world_size() < 2) {
    return absl::InvalidArgumentError("--tune: it needs ranks on two GPUs or more");
  }
  absl::PrintF("# all_reduce, %d ranks, graph\n# %s\n", executor->world_size(),
               GpuLine(executor->rank_devices()));
  Tuner tuner(*executor, options);
  LOCKSTEP_ASSIGN_OR_RETURN(
      AllReduceTuning best,
      tuner.Best(LinesCandidates(), {kKilobyte, 16 * kKilobyte, 64 * kKilobyte, 256 * kKilobyte,
                                     kMegabyte, 4 * kMegabyte}));
  LOCKSTEP_ASSIGN_OR_RETURN(const AllReduceTuning push,
                            tuner.Best(PushCandidates(), {kMegabyte, 4 * kMegabyte, 16 * kMegabyte,
                                                          64 * kMegabyte, 256 * kMegabyte}));
  best.push_blocks = push.push_blocks;
  LOCKSTEP_ASSIGN_OR_RETURN(best.max_lines_bytes, tuner.Crossover(best));
  absl::PrintF(
      "AllReduceTuning{.max_lines_bytes = %d,\n"
      "                .lines_blocks = %d,\n"
      "                .push_blocks = %d,\n"
      "                .lines_threads = %d}\n",
      best.max_lines_bytes, best.lines_blocks, best.push_blocks, best.lines_threads);
  return absl::OkStatus();
}

}  // namespace lockstep::tools
