// Device memory that is asked of the system once and used again.
#ifndef LOCKSTEP_RUNTIME_MEMORY_POOL_H_
#define LOCKSTEP_RUNTIME_MEMORY_POOL_H_

#include <cstdint>
#include <memory>

#include "lockstep/runtime/stream.h"

namespace lockstep {

/// Hands out blocks and takes them back when their last owner lets go. A block that came back
/// serves the next request of its size class. Used by its rank's thread; blocks may be freed from
/// any thread, and may outlive the pool, and any thread may read the figures.
///
/// The pool has at most three times as many bytes as were ever in use at once. Where a new block
/// would break that, those go back to the system that have lain free longest. So a process whose
/// sizes change does not grow for ever, and a loop that asks for the same shapes, and whose blocks
/// stay within the three times, asks nothing of the system after its first turn. All that is free
/// goes back before memory runs out, and at Trim().
///
/// Each rank has a pool of its own, and no pool gives away what another one keeps: where ranks
/// share a device, and one of them needs what another has left free, trim the other's.
///
/// On a GPU a block is for work on the pool's stream: it may serve the next request while work
/// queued before still uses it, because the next owner's work is queued behind. A block asked for
/// while the stream is being captured belongs to that graph until graph and owner are gone. Below
/// the pool lies one of CUDA's (cudaMemPool_t), one for each rank: what goes back on account of
/// the three times goes there, in the stream's order and without a wait, and from there to the
/// device at Trim() or when memory runs out.
class MemoryPool {
 public:
  virtual ~MemoryPool() = default;

  /// At least `bytes` bytes, aligned to 64 (on a GPU to 512), contents undefined.
  /// kResourceExhausted: the device has no more, all that was free here having gone back. On a GPU
  /// that one case waits for the stream, as Trim() does; while it is being captured, where that
  /// cannot be, nothing goes back.
  virtual absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) = 0;

  /// Gives all that is free back to the system (blocks below 2 MiB on the CPU: to malloc), and
  /// returns how many bytes that were. On a GPU it waits for the work on the stream, and with it
  /// for the peers that this waits for: all ranks may trim at once, and none has to.
  /// kFailedPrecondition: the stream is being captured.
  virtual absl::StatusOr<std::int64_t> Trim() = 0;

  /// Bytes that the system has given and not got back: used and free ones, and on a GPU what
  /// CUDA's pool keeps besides.
  virtual std::int64_t reserved_bytes() const = 0;
  /// Bytes of the blocks that have an owner, as they were rounded up.
  virtual std::int64_t used_bytes() const = 0;
  /// Bytes of the blocks that are kept for the next request.
  virtual std::int64_t free_bytes() const = 0;

  /// A pool for work on `stream`. kUnavailable: this build or machine has no such device.
  static absl::StatusOr<std::shared_ptr<MemoryPool>> Create(const Stream& stream);

 protected:
  /// kResourceExhausted, with what was asked for and what this pool has.
  absl::Status NoMemory(Device device, std::int64_t bytes) const;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_MEMORY_POOL_H_
