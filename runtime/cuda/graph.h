// The CUDA side of runtime/graph.h.
#ifndef LOCKSTEP_RUNTIME_CUDA_GRAPH_H_
#define LOCKSTEP_RUNTIME_CUDA_GRAPH_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/stream.h"

namespace lockstep::internal::cuda {

/// The executable graph of what `work` queues on `stream`.
absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream& stream,
                                                   absl::FunctionRef<absl::Status()> work);
absl::Status LaunchGraph(const Stream& stream, void* executable);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_GRAPH_H_
