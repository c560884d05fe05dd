// Device memory that is asked of the system once and used again.
#ifndef LOCKSTEP_RUNTIME_MEMORY_POOL_H_
#define LOCKSTEP_RUNTIME_MEMORY_POOL_H_

#include <cstdint>
#include <memory>

#include "lockstep/runtime/stream.h"

namespace lockstep {

/// Hands out blocks and takes them back when their last owner lets go. A block that came back
/// serves the next request of its size class, so a loop that asks for the same shapes asks nothing
/// of the system after its first turn. Blocks may be freed from any thread, and may outlive the
/// pool.
///
/// On a GPU a block is for work on the pool's stream: it may serve the next request while work
/// queued before still uses it, because the next owner's work is queued behind. A block asked for
/// while the stream is being captured belongs to that graph until graph and owner are gone.
class MemoryPool {
 public:
  virtual ~MemoryPool() = default;

  /// At least `bytes` bytes, aligned to 64 (on a GPU to 512), contents undefined.
  /// kResourceExhausted: the device has no more.
  virtual absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) = 0;

  /// Bytes asked of the system so far, in use or kept for the next request.
  virtual std::int64_t reserved_bytes() const = 0;

  /// A pool for work on `stream`. kUnavailable: this build or machine has no such device.
  static absl::StatusOr<std::shared_ptr<MemoryPool>> Create(const Stream& stream);
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_MEMORY_POOL_H_
