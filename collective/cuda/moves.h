// Moving one rank's share of a round when all inputs are ready and nobody else writes: kernels and
// copies that wait for nothing.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_MOVES_H_
#define LOCKSTEP_COLLECTIVE_CUDA_MOVES_H_

#include "lockstep/collective/shares.h"
#include "lockstep/runtime/stream.h"

namespace lockstep::internal::cuda {

/// Queues on `stream`, the stream of round.rank, what the cpu transport does in Move: this rank's
/// slice of a sum from all inputs into all outputs, or whatever its own output needs.
absl::Status QueueMoves(const Round& round, const Stream& stream);

/// The same where no rank can reach another's output: whatever this rank's own output needs. Of a
/// sum, these elements alone.
absl::Status QueuePull(const Round& round, const Stream& stream, Range of_sum);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_MOVES_H_
