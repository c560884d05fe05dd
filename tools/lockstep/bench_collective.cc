#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tools/lockstep/bench.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;

// One size of one collective: how many elements a rank gives and gets, and what nccl-tests counts
// as its size.
struct Size {
  std::int64_t count;
  std::int64_t in_count;
  std::int64_t out_count;
  std::int64_t bytes;
};

Size SizeFor(CollectiveKind kind, std::int64_t bytes, DType dtype, int ranks) {
  const auto element = static_cast<std::int64_t>(SizeOf(dtype));
  const bool in_parts = kind != CollectiveKind::kAllReduce && kind != CollectiveKind::kBroadcast;
  std::int64_t count = bytes / element;
  if (in_parts) count = count / ranks * ranks;
  Size size{.count = count, .in_count = count, .out_count = count, .bytes = count * element};
  if (kind == CollectiveKind::kReduceScatter) size.out_count = count / ranks;
  if (kind == CollectiveKind::kAllGather) size.in_count = count / ranks;
  return size;
}

// What crosses each link, over what a rank asked for (nccl-tests, doc/PERFORMANCE.md).
double BusFactor(CollectiveKind kind, int ranks) {
  if (kind == CollectiveKind::kBroadcast || ranks == 1) return 1;
  const double others = static_cast<double>(ranks - 1) / ranks;
  return kind == CollectiveKind::kAllReduce ? 2 * others : others;
}

// Small whole numbers that differ by rank and position, exact under every reduction of a few ranks.
double InputAt(ReduceOp op, int rank, std::int64_t index) {
  const std::int64_t mixed = index * 5 + rank * 3;
  return static_cast<double>(op == ReduceOp::kProduct ? 1 + mixed % 2 : mixed % 7 - 2);
}

double ReducedAt(ReduceOp op, int ranks, std::int64_t index) {
  double result = InputAt(op, 0, index);
  for (int rank = 1; rank < ranks; ++rank) {
    const double value = InputAt(op, rank, index);
    switch (op) {
      case ReduceOp::kProduct:
        result *= value;
        break;
      case ReduceOp::kMin:
        result = std::min(result, value);
        break;
      case ReduceOp::kMax:
        result = std::max(result, value);
        break;
      case ReduceOp::kSum:
      case ReduceOp::kAverage:
        result += value;
        break;
    }
  }
  return result;
}

double ExpectedAt(CollectiveKind kind, ReduceOp op, int rank, int ranks, const Size& size,
                  std::int64_t index) {
  const std::int64_t part = size.count / ranks;
  switch (kind) {
    case CollectiveKind::kReduceScatter:
      return ReducedAt(op, ranks, part * rank + index);
    case CollectiveKind::kAllGather:
      return InputAt(op, static_cast<int>(index / part), index % part);
    case CollectiveKind::kBroadcast:
      return InputAt(op, 0, index);
    case CollectiveKind::kAllToAll:
      return InputAt(op, static_cast<int>(index / part), part * rank + index % part);
    default:
      return ReducedAt(op, ranks, index);
  }
}

// One rank's part of the benchmark of one size.
class RankBench {
 public:
  RankBench(CollectiveKind kind, const BenchOptions& options, Worker& worker, Communicator& comm,
            const Size& size)
      : kind_(kind), options_(options), worker_(worker), comm_(comm), size_(size) {}

  absl::Status Prepare() {
    LOCKSTEP_ASSIGN_OR_RETURN(in_, worker_.Empty({size_.in_count}, options_.dtype));
    LOCKSTEP_ASSIGN_OR_RETURN(out_, worker_.Empty({size_.out_count}, options_.dtype));
    if (!options_.in_place) return FillInput(in_);
    // The part of the whole that this rank gives or gets, or the whole.
    if (kind_ == CollectiveKind::kReduceScatter) {
      LOCKSTEP_ASSIGN_OR_RETURN(out_,
                                in_.Slice(0, size_.out_count * worker_.rank(), size_.out_count));
    } else if (kind_ == CollectiveKind::kAllGather) {
      LOCKSTEP_ASSIGN_OR_RETURN(in_,
                                out_.Slice(0, size_.in_count * worker_.rank(), size_.in_count));
    } else {
      out_ = in_;
    }
    return FillInput(in_);
  }

  absl::Status RunOnce() {
    switch (kind_) {
      case CollectiveKind::kReduceScatter:
        return comm_.ReduceScatter(in_, out_, options_.op);
      case CollectiveKind::kAllGather:
        return comm_.AllGather(in_, out_);
      case CollectiveKind::kBroadcast:
        return comm_.Broadcast(in_, out_, 0);
      case CollectiveKind::kAllToAll:
        return comm_.AllToAll(in_, out_);
      default:
        return comm_.AllReduce(in_, out_, options_.op);
    }
  }

  // Microseconds of each iteration on this rank, back to back.
  absl::Status Measure(int iterations, std::vector<double>& times) {
    times.resize(static_cast<std::size_t>(iterations));
    LOCKSTEP_RETURN_IF_ERROR(comm_.Barrier());
    Clock::time_point start = Clock::now();
    for (double& time : times) {
      LOCKSTEP_RETURN_IF_ERROR(RunOnce());
      LOCKSTEP_RETURN_IF_ERROR(worker_.stream().Synchronize());
      const Clock::time_point end = Clock::now();
      time = std::chrono::duration<double, std::micro>(end - start).count();
      start = end;
    }
    return absl::OkStatus();
  }

  // Fresh inputs, an output full of junk, one more run, and every element looked at.
  absl::StatusOr<std::int64_t> CountWrong() {
    if (!options_.in_place) LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, -77, out_));
    LOCKSTEP_RETURN_IF_ERROR(FillInput(in_));
    LOCKSTEP_RETURN_IF_ERROR(RunOnce());
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor found, worker_.Empty({size_.out_count}, DType::kFloat64));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, out_, found));
    const bool reduces =
        kind_ == CollectiveKind::kAllReduce || kind_ == CollectiveKind::kReduceScatter;
    const int divisor = reduces && options_.op == ReduceOp::kAverage ? worker_.world_size() : 1;
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < size_.out_count; ++i) {
      const double expected =
          ExpectedAt(kind_, options_.op, worker_.rank(), worker_.world_size(), size_, i) / divisor;
      wrong += !IsRight(found.data<double>()[i], expected, divisor != 1);
    }
    return wrong;
  }

 private:
  absl::Status FillInput(const Tensor& tensor) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor exact, worker_.Empty({tensor.size()}, DType::kFloat64));
    for (std::int64_t i = 0; i < tensor.size(); ++i)
      exact.data<double>()[i] = InputAt(options_.op, worker_.rank(), i);
    return Copy(worker_, exact, tensor);
  }

  // Sums and copies are exact; an average is right to the last bits of its type.
  bool IsRight(double found, double expected, bool rounded) const {
    if (!IsFloating(options_.dtype)) expected = std::trunc(expected);
    const double relative = !rounded ? 0 : IsReducedPrecision(options_.dtype) ? 1.0 / 128 : 1e-6;
    return std::abs(found - expected) <= relative * std::abs(expected);
  }

  const CollectiveKind kind_;
  const BenchOptions& options_;
  Worker& worker_;
  Communicator& comm_;
  const Size size_;
  Tensor in_;
  Tensor out_;
};

// Enough iterations for half a second, guessed from one that is timed after the warm-up.
absl::StatusOr<int> NumIterations(RankBench& bench, Communicator& comm,
                                  const BenchOptions& options) {
  for (int i = 0; i < options.warmup; ++i) LOCKSTEP_RETURN_IF_ERROR(bench.RunOnce());
  if (options.iterations > 0) return options.iterations;
  std::vector<double> times;
  LOCKSTEP_RETURN_IF_ERROR(bench.Measure(5, times));
  double iterations = std::clamp(5e5 / std::max(Summarize(times).p50, 0.01), 20.0, 20000.0);
  // All ranks must come to the same number.
  const Tensor agreed = Tensor::View(&iterations, {1}, DType::kFloat64);
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(agreed, agreed, ReduceOp::kMax));
  return static_cast<int>(iterations);
}

struct Row {
  Size size;
  Times times = {};
  double algorithm_gb_per_s = 0;
  double bus_gb_per_s = 0;
  std::int64_t wrong = 0;
};

absl::StatusOr<Row> MeasureSize(CollectiveKind kind, const BenchOptions& options,
                                Executor& executor, CollectiveBarrier& barrier,
                                std::int64_t bytes) {
  const int ranks = executor.world_size();
  Row row{.size = SizeFor(kind, bytes, options.dtype, ranks)};
  std::vector<std::vector<double>> times(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> wrong(static_cast<std::size_t>(ranks));
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
    Communicator& comm = barrier.communicator(worker.rank());
    const auto rank = static_cast<std::size_t>(worker.rank());
    RankBench bench(kind, options, worker, comm, row.size);
    LOCKSTEP_RETURN_IF_ERROR(bench.Prepare());
    LOCKSTEP_ASSIGN_OR_RETURN(const int iterations, NumIterations(bench, comm, options));
    LOCKSTEP_RETURN_IF_ERROR(bench.Measure(iterations, times[rank]));
    if (!options.check) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(wrong[rank], bench.CountWrong());
    return absl::OkStatus();
  }));
  // An iteration takes as long as its slowest rank.
  for (std::size_t rank = 1; rank < times.size(); ++rank) {
    for (std::size_t i = 0; i < times[0].size(); ++i)
      times[0][i] = std::max(times[0][i], times[rank][i]);
  }
  row.times = Summarize(std::move(times[0]));
  for (const std::int64_t count : wrong) row.wrong += count;
  row.algorithm_gb_per_s = static_cast<double>(row.size.bytes) / row.times.p50 / 1e3;
  row.bus_gb_per_s = row.algorithm_gb_per_s * BusFactor(kind, ranks);
  return row;
}

void PrintHeader(CollectiveKind kind, const BenchOptions& options, const Executor& executor,
                 absl::string_view transport) {
  std::printf("# %s, %d ranks, transport %s, %s\n", std::string(Name(kind)).c_str(),
              executor.world_size(), std::string(transport).c_str(),
              options.in_place ? "in place" : "out of place");
  std::printf("# %s\n", MachineLine().c_str());
  std::printf("#%11s %12s %9s %6s %10s %10s %10s %8s %8s %7s\n", "size (B)", "count", "type",
              "redop", "time (us)", "min (us)", "p99 (us)", "algbw", "busbw", "#wrong");
}

void PrintRow(const Row& row, CollectiveKind kind, const BenchOptions& options) {
  const bool reduces = kind == CollectiveKind::kAllReduce || kind == CollectiveKind::kReduceScatter;
  std::printf("%12lld %12lld %9s %6s %10.2f %10.2f %10.2f %8.2f %8.2f ",
              static_cast<long long>(row.size.bytes), static_cast<long long>(row.size.count),
              std::string(Name(options.dtype)).c_str(),
              reduces ? std::string(Name(options.op)).c_str() : "none", row.times.p50,
              row.times.min, row.times.p99, row.algorithm_gb_per_s, row.bus_gb_per_s);
  if (options.check) {
    std::printf("%7lld\n", static_cast<long long>(row.wrong));
  } else {
    std::printf("%7s\n", "N/A");
  }
  std::fflush(stdout);
}

nlohmann::json ToJson(const Row& row) {
  return {{"size_bytes", row.size.bytes},
          {"count", row.size.count},
          {"p50_us", row.times.p50},
          {"min_us", row.times.min},
          {"p99_us", row.times.p99},
          {"mean_us", row.times.mean},
          {"wrong", row.wrong},
          {"algbw_gb_s", row.algorithm_gb_per_s},
          {"busbw_gb_s", row.bus_gb_per_s}};
}

absl::Status CheckSizes(const BenchOptions& options) {
  if (options.min_bytes < 0 || options.max_bytes < options.min_bytes || options.factor <= 1 ||
      options.iterations < 0 || options.warmup < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "bench: sizes from ", options.min_bytes, " to ", options.max_bytes, " by the factor ",
        options.factor, ", ", options.iterations, " iterations, ", options.warmup,
        " warm-up; sizes must rise by a factor above 1, and counts "
        "be at least 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchCollective(CollectiveKind kind, const BenchOptions& options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckSizes(options));
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
  nlohmann::json rows = nlohmann::json::array();
  if (!options.json) PrintHeader(kind, options, *executor, barrier->transport());
  std::int64_t wrong = 0;
  for (auto bytes = static_cast<double>(options.min_bytes);
       bytes <= static_cast<double>(options.max_bytes);
       bytes = std::max(bytes * options.factor, bytes + 1)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Row row, MeasureSize(kind, options, *executor, *barrier,
                                                         static_cast<std::int64_t>(bytes)));
    wrong += row.wrong;
    if (options.json) {
      rows.push_back(ToJson(row));
    } else {
      PrintRow(row, kind, options);
    }
  }
  if (options.json) {
    const nlohmann::json document = {{"benchmark", std::string(Name(kind))},
                                     {"machine", MachineLine()},
                                     {"ranks", executor->world_size()},
                                     {"transport", std::string(barrier->transport())},
                                     {"type", std::string(Name(options.dtype))},
                                     {"redop", std::string(Name(options.op))},
                                     {"in_place", options.in_place},
                                     {"rows", rows}};
    std::printf("%s\n", document.dump(2).c_str());
  }
  if (wrong == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(Name(kind), ": ", wrong, " elements were wrong"));
}

}  // namespace lockstep::tools
