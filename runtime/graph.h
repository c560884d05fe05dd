// A recorded piece of one rank's device work, replayed without the host.
#ifndef LOCKSTEP_RUNTIME_GRAPH_H_
#define LOCKSTEP_RUNTIME_GRAPH_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

/// What a rank queues on its stream, captured once as a CUDA graph. Layers, runtime math and
/// collectives can all be captured; collectives have to be captured by all ranks alike, and are
/// replayed by all ranks as often.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Graph step, Graph::Capture(worker, [&]() -> absl::Status {
///     LOCKSTEP_ASSIGN_OR_RETURN(y, mlp.Forward(x, nullptr));   // recorded, not run
///     return absl::OkStatus();
///   }));
///   for (...) LOCKSTEP_RETURN_IF_ERROR(step.Launch());   // reads x, writes y, each time
///
/// Whatever is read and written has its address recorded: the tensors of the host's must stay
/// where they are. Tensors made while capturing keep their memory as long as the graph or they
/// live. A host that captures the worker's stream by itself gets the same; it captures with
/// cudaStreamCaptureModeThreadLocal. Used by the rank's thread alone; the worker's stream outlives
/// it, and so do the groups whose collectives it holds.
class Graph {
 public:
  /// Calls `work` once and records what it queues. Returns its error, if it fails. kUnavailable:
  /// the worker is on the CPU, or `work` did what cannot be recorded.
  static absl::StatusOr<Graph> Capture(Worker& worker, absl::FunctionRef<absl::Status()> work);

  /// Queues one replay on the worker's stream.
  absl::Status Launch();

 private:
  Graph(Stream stream, std::shared_ptr<void> executable)
      : stream_(stream), executable_(std::move(executable)) {}

  Stream stream_;
  std::shared_ptr<void> executable_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_GRAPH_H_
