// What the transports on GPUs decide before anything runs there: which of them serves, and how a
// call is cut. Plain numbers, tested on machines without a GPU.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_
#define LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "lockstep/collective/shares.h"
#include "lockstep/collective/transport_kind.h"
#include "lockstep/runtime/device.h"

namespace lockstep::internal::cuda {

/// Ranks of one group of GPUs at most: their pointers travel as kernel parameters.
inline constexpr int kMaxRanks = 64;
/// Ranks that wait for each other on the device at most.
inline constexpr int kMaxPeers = 8;

/// The best transport for ranks on these GPUs, and why. `proof`: whether they reach each other's
/// memory, or which pair does not and why. `launches_block`: a launch returns when its kernel has
/// ended (CUDA_LAUNCH_BLOCKING).
struct BestTransport {
  TransportKind kind;
  std::string reason;
};
BestTransport ChooseBest(absl::Span<const Device> devices, const absl::Status& proof,
                         bool launches_block);

/// `tuning`, which is for two ranks, for `world_size`: what a rank sends goes to each of its peers,
/// so the buffers for it stay as large as those of two only if it is less. (And so does the time
/// that the links take: from there on, sums by tiles are ahead.)
AllReduceTuning FitInMemory(AllReduceTuning tuning, int world_size);

constexpr std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return DivideUp(a, b) * b; }

/// What a thread handles at once.
inline constexpr int kSlotBytes = 16;
inline bool IsAligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kSlotBytes == 0;
}

/// Calls visitor<kMax>() with the least kMax of 2, 4 and 8 that is no less than `ranks`: a kernel
/// keeps the values of as many ranks in registers.
template <typename Visitor>
decltype(auto) VisitMaxRanks(int ranks, Visitor&& visitor) {
  if (ranks <= 2) return visitor.template operator()<2>();
  if (ranks <= 4) return visitor.template operator()<4>();
  return visitor.template operator()<8>();
}
/// Calls visitor<T, kMax>() for `dtype` and `ranks`, and for all that there are.
template <typename Visitor>
decltype(auto) VisitKernel(DType dtype, int ranks, Visitor&& visitor) {
  return VisitDType(dtype, [&]<typename T>() {
    return VisitMaxRanks(ranks, [&]<int kMax>() { return visitor.template operator()<T, kMax>(); });
  });
}
template <typename Visitor>
void ForEachKernel(Visitor&& visitor) {
  for (const DType dtype : kAllDTypes) {
    for (const int ranks : {2, 4, 8}) VisitKernel(dtype, ranks, visitor);
  }
}

/// The pieces in which a call goes through pinned memory, so that one is on its way up while
/// another is on its way down; each is worth a copy engine's start. Sums alone are cut.
class StagedPieces {
 public:
  static constexpr int kMax = 16;

  explicit StagedPieces(const CollectiveCall& call) : elements_(call.in_count()) {
    constexpr std::int64_t kBytes = 2 << 20;
    if (call.kind != CollectiveKind::kAllReduce) return;
    const std::int64_t bytes = elements_ * static_cast<std::int64_t>(SizeOf(call.dtype));
    count_ = static_cast<int>(std::clamp<std::int64_t>(bytes / kBytes, 1, kMax));
  }
  int count() const { return count_; }
  /// Elements of piece `index`, which begins at a line of memory.
  Range operator[](int index) const { return {Begin(index), Begin(index + 1)}; }

 private:
  std::int64_t Begin(int index) const {
    return index == count_ ? elements_ : elements_ / count_ * index / 64 * 64;
  }
  std::int64_t elements_;
  int count_ = 1;
};

/// How a kernel that waits is launched. It and the next may hold `max_blocks` together.
struct LaunchShape {
  int num_blocks = 0;
  int num_threads = 0;
  int max_blocks = 0;
  /// Of each block, beyond what the kernel declares.
  int shared_bytes = 0;
  /// The blocks stand two by two on the multiprocessors of a pair (clusters), where the GPU has
  /// such. For an even number of them.
  bool in_pairs = false;

  /// Whether the next kernel's blocks may take their places while this one's hold theirs, if it is
  /// no larger than that allows.
  constexpr bool overlaps() const { return num_blocks <= max_blocks / 2; }
};

/// Blocks that the kernels of a round may have on a GPU at once. `room`, `room_aside`: where other
/// groups wait there too, for calls on the ranks' streams and beside them. Ranks choose by
/// themselves whether a call is aside and what it may hold, and may come upon a new neighbour one
/// after the other; their kernels have one shape.
int MaxBlocks(absl::Span<const CollectiveCall* const> calls, int room, int room_aside);
/// Whether they stand in pairs (see LaunchShape): those that a call has limited to so many, to run
/// beside a matrix product. The fast ones need both multiprocessors of a pair, and each block that
/// stood by itself would keep one pair from them. Not where groups share the GPU: their room is
/// counted in single multiprocessors.
bool StandInPairs(absl::Span<const CollectiveCall* const> calls, int num_blocks);

/// How the lines kernel is laid out, for all its launches: sums of up to max_bytes bytes, by up to
/// max_blocks blocks of num_threads threads, or as many warps in larger blocks. A line is 128
/// bytes, of which 120 are data; a warp handles a pack of eight lines at once, and as many packs as
/// it must.
struct LinesLayout {
  static constexpr int kLineBytes = 128;
  static constexpr int kLinesPerPack = 8;
  static constexpr int kSlotsPerPack = 60;
  static constexpr std::int64_t kPackBytes = std::int64_t{kSlotsPerPack} * kSlotBytes;
  static constexpr int kMaxThreads = 512;

  std::int64_t max_bytes;
  int max_blocks;
  int num_threads;

  constexpr int warps_per_block() const { return num_threads / 32; }
  constexpr std::int64_t max_warps() const {
    return std::int64_t{std::max(1, num_blocks(max_bytes))} * warps_per_block();
  }
  /// For which a warp has room in the buffer.
  constexpr std::int64_t packs_per_warp() const {
    return std::max<std::int64_t>(1, DivideUp(DivideUp(max_bytes, kPackBytes), max_warps()));
  }
  constexpr std::int64_t max_lines() const {
    return max_warps() * packs_per_warp() * kLinesPerPack;
  }
  /// Each warp has one pack, or all blocks are there: a warp's packs never are more than its room.
  constexpr int num_blocks(std::int64_t bytes) const {
    return static_cast<int>(std::min<std::int64_t>(
        DivideUp(DivideUp(bytes, kPackBytes), warps_per_block()), max_blocks));
  }
  /// With at most `room` blocks: of num_threads each if these fit, else the same warps in blocks of
  /// kMaxThreads, with a pack each. Without a block if neither fits.
  constexpr LaunchShape ShapeFor(std::int64_t bytes, int room) const {
    const LaunchShape shape = {num_blocks(bytes), num_threads, room};
    if (shape.num_blocks <= room) return shape;
    const std::int64_t packs = DivideUp(bytes, kPackBytes);
    const std::int64_t blocks = DivideUp(packs, kMaxThreads / 32);
    if (blocks > room || packs > max_warps()) return {};
    return {static_cast<int>(blocks), kMaxThreads, room};
  }
  /// Size of one rank's line buffer, which has places for the others alone.
  constexpr std::int64_t buffer_bytes(int world_size) const {
    return std::int64_t{2} * (world_size - 1) * max_lines() * kLineBytes;
  }
};

/// How a sum is pushed: every rank owns a slice, which travels in tiles. Tile i of block b is tile
/// b + i * num_blocks of every slice.
struct PushLayout {
  /// Tiles of a block that may be under way at once, pushed and not yet summed: kMinDepth where all
  /// push_blocks push, more where fewer do, which share the room. Deep enough that no link rests
  /// while a flag is on its way.
  static constexpr int kMinDepth = 8;
  static constexpr int kMaxDepth = 16;
  /// There is room for so many blocks, if not for more.
  static constexpr int kMinBlocks = 32;

  /// Every rank's slice but the last has this many slots. Slices and tiles begin at lines of 128
  /// bytes.
  std::int64_t slice_slots;
  /// All blocks get as many tiles, of a size that divides the slice evenly.
  std::int64_t tile_slots;

  static constexpr PushLayout Of(std::int64_t slots, int world_size, int num_blocks,
                                 std::int64_t max_tile_bytes) {
    const std::int64_t slice_slots = RoundUp(DivideUp(slots, world_size), 8);
    const std::int64_t max_at_once = num_blocks * (max_tile_bytes / kSlotBytes);
    const std::int64_t tiles = num_blocks * DivideUp(slice_slots, max_at_once);
    return {slice_slots, RoundUp(DivideUp(slice_slots, tiles), 8)};
  }
  /// A power of two.
  static constexpr int Depth(int num_blocks, int push_blocks) {
    const int room = std::max(kMinBlocks, push_blocks) * kMinDepth / num_blocks;
    return std::min(kMaxDepth, static_cast<int>(std::bit_floor(static_cast<unsigned>(room))));
  }
  /// Size of one rank's tile buffer.
  static constexpr std::int64_t BufferBytes(int world_size, int push_blocks,
                                            std::int64_t max_tile_bytes) {
    return std::int64_t{std::max(kMinBlocks, push_blocks)} * kMinDepth * (world_size - 1) *
           max_tile_bytes;
  }
};

/// What one rank's lines and tiles take of its GPU.
constexpr std::int64_t PeerBufferBytes(const AllReduceTuning& tuning, int world_size) {
  if (world_size == 1) return 0;
  const LinesLayout lines = {tuning.max_lines_bytes, tuning.lines_blocks, tuning.lines_threads};
  return lines.buffer_bytes(world_size) +
         PushLayout::BufferBytes(world_size, tuning.push_blocks, tuning.push_tile_bytes);
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_
