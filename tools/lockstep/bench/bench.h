// `lockstep bench`: how long collectives, barriers, hand-overs and an MLP take, and whether their
// results are right.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BENCH_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BENCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/executor.h"

namespace lockstep::tools {

/// What is measured in turns with lockstep, on GPUs.
enum class BenchPeer : unsigned char {
  kNone,
  kNccl,           // on the same buffers
  kNcclSymmetric,  // on buffers of its own, in symmetric windows
};

/// For tests of the checkers: called by each rank's thread with a result before it is looked at,
/// and may change it. The program itself sets none.
using Spoil = std::function<void(int rank, const Tensor& result)>;

/// The network of `lockstep bench mlp`: hidden -> inner -> GELU -> hidden, and its inputs.
struct MlpBenchOptions {
  std::int64_t hidden = 0;
  std::int64_t inner = 0;
  std::vector<std::int64_t> rows;  // of the input, [rows, hidden]: one measurement each
  DType dtype = DType::kBFloat16;
  Spoil spoil = nullptr;
};

/// The flags of nccl-tests, where to run, and how.
struct BenchOptions {
  Executor::Options executor;
  CollectiveBarrierOptions barrier;
  std::int64_t min_bytes = 1 << 10;   // -b
  std::int64_t max_bytes = 64 << 20;  // -e
  double factor = 2;                  // -f
  int iterations = 0;                 // -n; 0: as many as take long enough
  int warmup = 5;                     // -w
  bool check = true;                  // -c
  DType dtype = DType::kFloat32;      // -d
  ReduceOp op = ReduceOp::kSum;       // -o
  bool in_place = false;
  bool json = false;
  bool graph = false;
  BenchPeer peer = BenchPeer::kNone;
  bool tune = false;
  MlpBenchOptions mlp;
  int groups = 1;  // that do the same at once; the slowest counts
  int busy = 0;    // threads that keep cores busy meanwhile
  Spoil spoil = nullptr;
};

/// Microseconds of many iterations, each that of the slowest rank.
struct Times {
  double mean = 0;
  double min = 0;
  double p50 = 0;
  double p99 = 0;
};
/// All zeros if there are none.
Times Summarize(std::vector<double> microseconds);
/// The smallest value that at least that share of the sorted values do not exceed (nearest rank).
double Percentile(const std::vector<double>& sorted, double share);

/// Microseconds of each of `repeats` calls, made one after the other; or the first error.
absl::StatusOr<double> TimeEach(int repeats, absl::FunctionRef<absl::Status()> call);

/// The names that `lockstep bench` takes: the collectives, "barrier", "executor", "startup", "mlp"
/// and "limits".
extern const std::vector<const char*> kBenchNames;

/// Runs one benchmark and writes its table, or its JSON, to stdout. kInvalidArgument: a name or
/// size that is not possible. kDataLoss: a result was wrong.
absl::Status Bench(const std::string& name, const BenchOptions& options);

/// The parts of Bench.
absl::Status BenchCollective(CollectiveKind kind, const BenchOptions& options);
absl::Status BenchBarrier(const BenchOptions& options);
absl::Status BenchExecutor(const BenchOptions& options);
/// From nothing to the first sum of all ranks, the first time in a process and later.
absl::Status BenchStartup(const BenchOptions& options);
/// ParallelMlp's forward pass, alone and with the backward pass, compared with its products alone
/// and with NCCL.
absl::Status BenchMlp(const BenchOptions& options);
/// What the links, the copy engines and launches of these GPUs can do, and what the order of a sum
/// costs. kUnavailable: this build has no CUDA. kDataLoss: a sum was wrong.
absl::Status BenchLimits(const BenchOptions& options);
/// Searches the AllReduceTuning of these GPUs, and prints it as code.
absl::Status TuneAllReduce(const BenchOptions& options);

/// "4K", "64M", "1G" or plain bytes. kInvalidArgument: none of these, or more than 2^62.
absl::StatusOr<std::int64_t> ParseBytes(absl::string_view text);

/// Notes for the head of a table: where the ranks are pinned, and what runs beside them. Empty
/// where there is nothing to say.
std::vector<std::string> BesideNotes(const BenchOptions& options, const Executor& executor);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_BENCH_H_
