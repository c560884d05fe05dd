// Room on GPUs for the kernels of several groups that wait for each other's blocks. Plain numbers,
// tested on machines without a GPU.
//
// A block that waits for a peer holds its multiprocessor. Two groups whose kernels may each fill a
// GPU can stop for ever: one fills GPU 0 and waits for its blocks on GPU 1, where the other has
// filled all. So each stream on which kernels wait (a lane) has a limit to its blocks, under which
// the kernels of all lanes find room at once. It is given when the lane is taken and kept as long
// as it lives, since a captured graph keeps its shape.
//
// A group that has its GPUs to itself need not keep its limit, and what it has queued or captured
// by then stays as large when others come. That is safe too, as long as there is one such group:
// blocks start in the order of their numbers and wait for the blocks of their number alone, and the
// limits of the others leave it a multiprocessor on each GPU, so its lowest unfinished block runs
// on all. It comes to an end, whatever it had filled, and leaves the others their room. (A captured
// sum whose blocks stand in pairs may have to wait until kernels of the others have ended and left
// a pair; those never wait for it, since it holds no more than its own room.)
//
// CUDA starts the work of few streams at once (CUDA_DEVICE_MAX_CONNECTIONS, 8 by default): what
// further ones have queued stands behind a kernel that waits, and may be what that waits for. So
// there is a limit to the lanes of a GPU too.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_RESIDENCY_H_
#define LOCKSTEP_COLLECTIVE_CUDA_RESIDENCY_H_

#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/runtime/status.h"

namespace lockstep::internal::cuda {

/// A stream, by its handle, of a GPU with so many multiprocessors.
struct Lane {
  int gpu;
  int multiprocessors;
  const void* stream;
};

/// Who has how much room. Not thread-safe.
class ResidencyLedger {
 public:
  /// A lane has up to kMaxBlocks, as long as kReserved are left for each of kExpectedLanes in all
  /// (fewer on small GPUs).
  static constexpr int kMaxBlocks = 32;
  static constexpr int kReserved = 8;
  static constexpr int kExpectedLanes = 8;

  explicit ResidencyLedger(int max_lanes) : max_lanes_(max_lanes) {}

  /// Blocks that a kernel of a group on these lanes may have on a GPU at once, up to `wanted`.
  /// Lanes that other groups have taken are shared with them, with the limits that they have: a
  /// stream runs one kernel at a time. kResourceExhausted: a GPU has no lane or no room left.
  absl::StatusOr<int> Take(absl::Span<const Lane> lanes, int wanted);
  void GiveBack(absl::Span<const Lane> lanes);
  /// Taken on this GPU.
  int num_lanes(int gpu) const;
  /// Whether a group that has taken these, one on each of its GPUs, and beside them the `sides`,
  /// meets no others there. Groups without sides on the same streams run one behind the other.
  bool AreAlone(absl::Span<const Lane> lanes, absl::Span<const Lane> sides) const;

 private:
  struct Entry {
    int limit;
    int owners = 0;
  };
  using Key = std::pair<int, const void*>;  // GPU and stream

  const Entry* Find(const Lane& lane) const;
  /// For each of `num_new` more lanes of this one's GPU.
  int ShareOf(const Lane& lane, int num_new) const;

  const int max_lanes_;
  std::map<Key, Entry> entries_;
};

/// One group's lanes, in the ledger of this process; given back when it is destroyed. Any thread.
class Residency {
 public:
  static constexpr int kUnlimited = std::numeric_limits<int>::max();

  /// Errors as above.
  static absl::StatusOr<std::unique_ptr<Residency>> Take(std::vector<Lane> lanes, int wanted);
  /// Streams beside these, for kernels that keep their order with those here. At most once.
  absl::Status TakeSides(std::vector<Lane> sides);
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  /// The limit of all kernels, and of those that run beside the group's own streams.
  int max_blocks() const { return max_blocks_; }
  int max_blocks_aside() const { return max_blocks_aside_; }
  /// Whether there need be no limit now.
  bool is_alone() const { return is_alone_.load(std::memory_order_relaxed); }

  /// Lanes taken on a GPU by all groups of this process.
  static int NumLanes(int gpu);

 private:
  explicit Residency(std::vector<Lane> lanes) : lanes_(std::move(lanes)) {}
  // Behind every change of the ledger: who is alone now.
  static void UpdateAll();

  const std::vector<Lane> lanes_;
  std::vector<Lane> sides_;
  int max_blocks_ = 0;
  int max_blocks_aside_ = 0;
  std::atomic<bool> is_alone_{false};
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_RESIDENCY_H_
