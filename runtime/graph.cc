#include "lockstep/runtime/graph.h"

#include "lockstep/runtime/cuda/stream.h"

namespace lockstep {

absl::StatusOr<Graph> Graph::Capture(Worker& worker, absl::FunctionRef<absl::Status()> work) {
  if (worker.device().is_cpu()) {
    return absl::UnavailableError("graph: the worker is on the CPU; graphs are CUDA's");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<void> executable,
                            internal::cuda::CaptureGraph(worker.stream(), work));
  return Graph(worker.stream(), std::move(executable));
}

absl::Status Graph::Launch() { return internal::cuda::LaunchGraph(stream_, executable_.get()); }

}  // namespace lockstep
