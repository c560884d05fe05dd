// The CUDA side of runtime/stream.h and runtime/graph.h.
#ifndef LOCKSTEP_RUNTIME_CUDA_STREAM_H_
#define LOCKSTEP_RUNTIME_CUDA_STREAM_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/stream.h"

/// What a cudaStream_t points to.
struct CUstream_st;

namespace lockstep::internal::cuda {

/// A new stream that waits for no other, as Stream::native, destroyed with its last owner.
absl::StatusOr<std::shared_ptr<void>> MakeStream(Device device);
inline CUstream_st* NativeStream(const Stream& stream) {
  return static_cast<CUstream_st*>(stream.native());
}

/// Whether lockstep can work on a stream of the host's. kInvalidArgument: it is of another device,
/// or of a context of the host's own there, or another one on each thread.
absl::Status CheckStream(const Stream& stream);
bool IsCapturing(const Stream& stream);
absl::Status Synchronize(const Stream& stream);
/// Queues that `bytes` bytes at `memory` become 0.
absl::Status QueueZeros(const Stream& stream, void* memory, std::int64_t bytes);

/// The executable graph of what `work` queues on `stream`.
absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream& stream,
                                                   absl::FunctionRef<absl::Status()> work);
absl::Status LaunchGraph(const Stream& stream, void* executable);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_STREAM_H_
