// Device memory that is requested from the system once and used again.
#ifndef LOCKSTEP_RUNTIME_MEMORY_POOL_H_
#define LOCKSTEP_RUNTIME_MEMORY_POOL_H_

#include <cstdint>
#include <memory>

#include "lockstep/runtime/stream.h"

namespace lockstep {

/// Hands out blocks of memory, and takes each back when its last owner lets go, for the next
/// request of its size class. Used by its rank's thread. Blocks may be freed from any thread and
/// may outlive the pool; any thread may read the figures.
///
/// A pool holds at most three times the bytes that were ever in use at once. Where a new block
/// would exceed that, the blocks that have been free longest go back to the system. So a process
/// whose sizes change does not grow for ever, and a loop over the same shapes, within the three
/// times, requests nothing from the system after its first pass. Everything free goes back before
/// memory runs out, and at Trim().
///
/// Each rank has a pool of its own, and no pool returns what another one keeps: where ranks share a
/// device and one needs what another has left free, trim the other's.
///
/// On a GPU a block is for work on the pool's stream: it may serve the next request while work
/// queued earlier still uses it, because the next owner's work is queued behind that. A block
/// requested while the stream is being captured belongs to that graph until both the graph and its
/// owner are gone. Each rank's pool stands on a pool of CUDA's (cudaMemPool_t): blocks that exceed
/// the three times go there, in stream order and without a wait, and from there to the device at
/// Trim() or when memory runs out.
class MemoryPool {
 public:
  virtual ~MemoryPool() = default;

  /// At least `bytes` bytes, aligned to 64 (on a GPU to 512), contents undefined.
  /// kResourceExhausted: the device has no more, although everything free here has gone back. On a
  /// GPU that one case waits for the stream, as Trim() does; while the stream is being captured it
  /// cannot, and nothing goes back.
  virtual absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) = 0;

  /// Returns everything free to the system (on the CPU, blocks below 2 MiB to malloc), and says how
  /// many bytes that was. On a GPU it waits for the work on the stream, and so for the peers that
  /// this work waits for: all ranks may trim at once, and none has to. kFailedPrecondition: the
  /// stream is being captured.
  virtual absl::StatusOr<std::int64_t> Trim() = 0;

  /// Bytes obtained from the system and not returned: used ones, free ones, and on a GPU what
  /// CUDA's pool keeps besides.
  virtual std::int64_t reserved_bytes() const = 0;
  /// Bytes of the blocks that have an owner, rounded up to their size classes.
  virtual std::int64_t used_bytes() const = 0;
  /// Bytes of the blocks kept for the next request.
  virtual std::int64_t free_bytes() const = 0;

  /// A pool for work on `stream`. kUnavailable: this build or machine has no such device.
  static absl::StatusOr<std::shared_ptr<MemoryPool>> Create(const Stream& stream);

 protected:
  /// kResourceExhausted, with what was asked for and what this pool has.
  absl::Status NoMemory(Device device, std::int64_t bytes) const;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_MEMORY_POOL_H_
