#include "lockstep/tools/lockstep/bench/measure_collective.h"

#include <algorithm>
#include <chrono>

#include "lockstep/tools/lockstep/bench/device_rounds.h"
#include "lockstep/tools/lockstep/bench/rank_bench.h"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;
using Queue = DeviceRounds::Queue;

constexpr int kRounds = 7;

// Microseconds of each iteration on this rank, back to back.
absl::Status TimeOnHost(Worker& worker, Communicator& comm, const Queue& queue, int iterations,
                        std::vector<double>& times) {
  times.resize(static_cast<std::size_t>(iterations));
  LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
  Clock::time_point start = Clock::now();
  for (double& time : times) {
    LOCKSTEP_RETURN_IF_ERROR(queue());
    LOCKSTEP_RETURN_IF_ERROR(worker.stream().Synchronize());
    const Clock::time_point end = Clock::now();
    time = std::chrono::duration<double, std::micro>(end - start).count();
    start = end;
  }
  return absl::OkStatus();
}

// Enough iterations for half a second, guessed from one that is timed after the warm-up.
absl::StatusOr<int> NumIterations(Worker& worker, Communicator& comm, const Queue& queue,
                                  const BenchOptions& options) {
  for (int i = 0; i < options.warmup; ++i) LOCKSTEP_RETURN_IF_ERROR(queue());
  if (options.iterations > 0) return options.iterations;
  std::vector<double> times;
  LOCKSTEP_RETURN_IF_ERROR(TimeOnHost(worker, comm, queue, 5, times));
  double iterations = std::clamp(5e5 / std::max(Summarize(times).p50, 0.01), 20.0, 20000.0);
  // All ranks must come to the same number.
  const Tensor agreed = Tensor::View(&iterations, {1}, DType::kFloat64);
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(agreed, agreed, ReduceOp::kMax));
  return static_cast<int>(iterations);
}

// What the ranks of one measurement share: each writes its own part.
struct Shared {
  Shared(int world_size, int contestants, const BenchOptions& options)
      : host_times(static_cast<std::size_t>(world_size)),
        wrong(static_cast<std::size_t>(world_size)),
        rounds(world_size, contestants,
               {.graph = options.graph,
                .rounds = kRounds,
                .warmup = options.warmup,
                .calls = options.iterations}) {}

  std::vector<std::vector<double>> host_times;
  std::vector<std::int64_t> wrong;
  DeviceRounds rounds;
};

absl::Status MeasureOnCpu(RankBench& bench, const BenchOptions& options, Worker& worker,
                          Communicator& comm, Shared& shared) {
  const auto rank = static_cast<std::size_t>(worker.rank());
  LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveBuffers buffers, bench.MakeBuffers());
  const Queue queue = [&] { return bench.Queue(comm, buffers); };
  LOCKSTEP_ASSIGN_OR_RETURN(const int iterations, NumIterations(worker, comm, queue, options));
  LOCKSTEP_RETURN_IF_ERROR(TimeOnHost(worker, comm, queue, iterations, shared.host_times[rank]));
  if (!options.check) return absl::OkStatus();
  LOCKSTEP_ASSIGN_OR_RETURN(shared.wrong[rank], bench.CountWrong(buffers, queue));
  return absl::OkStatus();
}

absl::Status MeasureOnGpu(RankBench& bench, CollectiveKind kind, const BenchOptions& options,
                          Worker& worker, Communicator& comm, NcclPeer* peer, Shared& shared) {
  const auto rank = static_cast<std::size_t>(worker.rank());
  LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveBuffers buffers, bench.MakeBuffers());
  CollectiveBuffers peer_buffers = buffers;
  if (options.peer == BenchPeer::kNcclSymmetric) {
    LOCKSTEP_ASSIGN_OR_RETURN(peer_buffers, bench.MakeBuffers(peer));
  }
  const Queue ours = [&] { return bench.Queue(comm, buffers); };
  const Queue theirs = [&] {
    return peer->Queue(worker, kind, options.op, peer_buffers.in, peer_buffers.out);
  };
  std::vector<Queue> contestants = {ours};
  if (peer != nullptr) contestants.push_back(theirs);
  LOCKSTEP_RETURN_IF_ERROR(shared.rounds.Measure(worker, comm, contestants));
  if (options.check) {
    LOCKSTEP_ASSIGN_OR_RETURN(shared.wrong[rank], bench.CountWrong(buffers, ours));
    LOCKSTEP_RETURN_IF_ERROR(AwaitAll(comm));
    // NCCL rounds averages its own way.
    if (peer != nullptr && !(Reduces(kind) && options.op == ReduceOp::kAverage)) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t wrong, bench.CountWrong(peer_buffers, theirs));
      shared.wrong[rank] += wrong;
    }
  }
  return AwaitAll(comm);
}

}  // namespace

absl::StatusOr<CollectiveRow> MeasureCollective(CollectiveKind kind, const BenchOptions& options,
                                                Executor& executor, CollectiveBarrier& barrier,
                                                NcclPeer* peer, std::int64_t bytes) {
  const int ranks = executor.world_size();
  const bool on_cpu = executor.rank_devices()[0].is_cpu();
  CollectiveRow row{.size = SizeFor(kind, bytes, options.dtype, ranks)};
  Shared shared(ranks, peer == nullptr ? 1 : 2, options);
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
    Communicator& comm = barrier.communicator(worker.rank());
    RankBench bench(kind, options, worker, row.size);
    return on_cpu ? MeasureOnCpu(bench, options, worker, comm, shared)
                  : MeasureOnGpu(bench, kind, options, worker, comm, peer, shared);
  }));
  row.times = Summarize(on_cpu ? SlowestOf(shared.host_times) : shared.rounds.SlowestRank(0));
  if (peer != nullptr) {
    row.peer_times = Summarize(shared.rounds.SlowestRank(1));
    row.ratio = row.peer_times.p50 / row.times.p50;
  }
  for (const std::int64_t count : shared.wrong) row.wrong += count;
  row.algorithm_gb_per_s = static_cast<double>(row.size.bytes) / row.times.p50 / 1e3;
  row.bus_gb_per_s = row.algorithm_gb_per_s * BusFactor(kind, ranks);
  return row;
}

}  // namespace lockstep::tools
