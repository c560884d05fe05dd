// One size of one collective, timed and checked on all ranks.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_MEASURE_COLLECTIVE_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_MEASURE_COLLECTIVE_H_

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/collective_data.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {

struct CollectiveRow {
  CollectiveSize size;
  Times times = {};
  double algorithm_gb_per_s = 0;
  double bus_gb_per_s = 0;
  /// Elements, over all ranks; NCCL's too.
  std::int64_t wrong = 0;
  /// NCCL's, in alternating rounds; zeros without it.
  Times peer_times = {};
  /// NCCL's median over ours.
  double ratio = 0;
};

/// On the CPU each call is timed by itself, from host to host; on GPUs rounds of many calls are
/// timed on the device (DeviceRounds). The slowest rank counts. `peer` is null, or takes turns on
/// GPUs.
absl::StatusOr<CollectiveRow> MeasureCollective(CollectiveKind kind, const BenchOptions& options,
                                                Executor& executor, CollectiveBarrier& barrier,
                                                NcclPeer* peer, std::int64_t bytes);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_MEASURE_COLLECTIVE_H_
