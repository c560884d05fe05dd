// A recorded piece of one rank's device work, replayed without the host.
#ifndef LOCKSTEP_RUNTIME_GRAPH_H_
#define LOCKSTEP_RUNTIME_GRAPH_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

/// What a rank queues on its stream, captured once as a CUDA graph and replayed without the host.
/// Layers, runtime math and collectives can all be captured. All ranks must capture the same
/// collectives in the same order, and replay them equally often.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Graph step, Graph::Capture(worker, [&]() -> absl::Status {
///     LOCKSTEP_ASSIGN_OR_RETURN(y, mlp.Forward(x, nullptr));   // recorded, not run
///     return absl::OkStatus();
///   }));
///   for (...) LOCKSTEP_RETURN_IF_ERROR(step.Launch());   // reads x, writes y, each time
///
/// A graph records addresses: the memory that it reads and writes must stay where it is. A tensor
/// made while capturing keeps its memory as long as the tensor or the graph lives. A host may
/// capture the worker's stream itself, with cudaStreamCaptureModeThreadLocal, to the same effect.
/// Used by the rank's thread alone. The worker's stream and the groups whose collectives it holds
/// must outlive it.
class Graph {
 public:
  /// Calls `work` once and records what it queues; nothing of that runs. An error of `work` is
  /// returned. kUnavailable: the worker is on the CPU, or `work` did what cannot be recorded.
  static absl::StatusOr<Graph> Capture(Worker& worker, absl::FunctionRef<absl::Status()> work);

  /// Queues one replay on the worker's stream, and returns before it is done.
  absl::Status Launch();

 private:
  Graph(Stream stream, std::shared_ptr<void> executable)
      : stream_(stream), executable_(std::move(executable)) {}

  Stream stream_;
  std::shared_ptr<void> executable_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_GRAPH_H_
