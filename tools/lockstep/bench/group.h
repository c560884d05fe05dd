// Where a benchmark runs.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_GROUP_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_GROUP_H_

#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {

/// Ranks, a group of them all, and NCCL beside it where that is asked for.
struct BenchGroup {
  static absl::StatusOr<BenchGroup> Create(const BenchOptions& options, bool with_peer = true);

  /// How calls reach the devices: "host", "graph" or "eager".
  const char* mode;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
  std::unique_ptr<NcclPeer> peer;  // or null

  int ranks() const { return executor->world_size(); }
  /// "3 ranks, transport cpu".
  std::string ToString() const;
  /// "2 x NVIDIA H200, CUDA 13.0, ..., NCCL 2.28.9"; empty on the CPU.
  std::string gpus() const;
  /// What a report's document says of it.
  nlohmann::json Describe(absl::string_view benchmark) const;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_GROUP_H_
