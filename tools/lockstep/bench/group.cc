#include "lockstep/tools/lockstep/bench/group.h"

#include "lockstep/tools/lockstep/bench/device_timer.h"

namespace lockstep::tools {

absl::StatusOr<BenchGroup> BenchGroup::Create(const BenchOptions& options, bool with_peer) {
  BenchGroup group{.mode = options.graph ? "graph" : "eager", .executor{}, .barrier{}, .peer{}};
  LOCKSTEP_ASSIGN_OR_RETURN(group.executor, Executor::Create(options.executor));
  if (group.executor->rank_devices()[0].is_cpu()) {
    group.mode = "host";
    if (options.graph) {
      return absl::InvalidArgumentError(
          "--graph: these ranks are on the CPU, and graphs are for GPUs");
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(group.barrier,
                            CollectiveBarrier::Create(*group.executor, options.barrier));
  if (with_peer && options.peer != BenchPeer::kNone) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        group.peer, NcclPeer::Create(*group.executor, options.peer == BenchPeer::kNcclSymmetric));
  }
  return group;
}

std::string BenchGroup::ToString() const {
  return absl::StrCat(ranks(), " ranks, transport ", std::string(barrier->transport()));
}

std::string BenchGroup::gpus() const {
  std::string line = GpuLine(executor->rank_devices());
  if (peer != nullptr) absl::StrAppend(&line, ", NCCL ", NcclVersion());
  return line;
}

nlohmann::json BenchGroup::Describe(absl::string_view benchmark) const {
  nlohmann::json document = {{"benchmark", std::string(benchmark)},
                             {"ranks", ranks()},
                             {"transport", std::string(barrier->transport())},
                             {"mode", mode}};
  if (const std::string line = gpus(); !line.empty()) document["gpus"] = line;
  return document;
}

}  // namespace lockstep::tools
