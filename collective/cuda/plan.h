// What the transports on GPUs decide before anything runs there: which of them serves, and how a
// call is cut. Plain numbers, tested on machines without a GPU.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_
#define LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/collective/transport_kind.h"
#include "lockstep/runtime/device.h"

namespace lockstep::internal::cuda {

/// Ranks of one group of GPUs at most: their pointers travel as kernel parameters.
inline constexpr int kMostRanks = 64;
/// Ranks that wait for each other on the device at most.
inline constexpr int kMostPeers = 8;

/// The best transport for ranks on these GPUs, and why. `proof`: whether they reach each other's
/// memory, or which pair does not and why. `launches_block`: a launch returns when its kernel has
/// ended (CUDA_LAUNCH_BLOCKING).
struct BestTransport {
  TransportKind kind;
  std::string reason;
};
BestTransport ChooseBest(absl::Span<const Device> devices, const absl::Status& proof,
                         bool launches_block);

/// `tuning` with few enough blocks that `num_ranks` ranks find room on a GPU of so many
/// multiprocessors, each with a kernel that waits for its peers and the next one, which may come
/// before that ends.
AllReduceTuning FitOnGpu(AllReduceTuning tuning, int num_ranks, int multiprocessors);

/// `tuning`, which is for two ranks, for `num_ranks`: what a rank sends goes to each of its peers,
/// so the buffers for it stay as large as those of two only if it is less. (And so does the time
/// that the links take: from there on, sums by tiles are ahead.)
AllReduceTuning FitInMemory(AllReduceTuning tuning, int num_ranks);

constexpr std::int64_t DivideUp(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return DivideUp(a, b) * b; }

/// What a thread handles at once.
inline constexpr int kSlotBytes = 16;

struct Range {
  std::int64_t begin;
  std::int64_t end;
};

/// The elements of a sum that `rank` reduces for all: equal parts to a line of memory, in rank
/// order.
constexpr Range SliceOf(std::int64_t elements, int rank, int num_ranks) {
  constexpr std::int64_t kElements = 64;  // whole lines of memory in every type
  const std::int64_t lines = DivideUp(elements, kElements);
  return {std::min(elements, lines * rank / num_ranks * kElements),
          std::min(elements, lines * (rank + 1) / num_ranks * kElements)};
}

/// The part that a rank gives to, or takes from, `rank` in an all-to-all of `width` elements:
/// parts follow each other, equal ones unless counts are given.
struct FlatPart {
  std::int64_t offset;
  std::int64_t count;
};
constexpr FlatPart PartOf(const std::int64_t* counts, std::int64_t width, int rank, int num_ranks) {
  if (counts == nullptr) return {width / num_ranks * rank, width / num_ranks};
  std::int64_t offset = 0;
  for (int r = 0; r < rank; ++r) offset += counts[r];
  return {offset, counts[rank]};
}

/// The pieces in which a call goes through pinned memory, so that one is on its way up while
/// another is on its way down; each is worth a copy engine's start. Sums alone are cut.
class StagedPieces {
 public:
  static constexpr int kMost = 16;

  explicit StagedPieces(const CollectiveCall& call) : elements_(call.in_count()) {
    constexpr std::int64_t kBytes = 2 << 20;
    if (call.kind != CollectiveKind::kAllReduce) return;
    const std::int64_t bytes = elements_ * static_cast<std::int64_t>(SizeOf(call.dtype));
    count_ = static_cast<int>(std::clamp<std::int64_t>(bytes / kBytes, 1, kMost));
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

/// How the lines kernel is laid out, for all its launches: sums of up to most_bytes bytes, by up to
/// most_blocks blocks of num_threads threads. A line is 128 bytes, of which 120 are data; a warp
/// handles a pack of eight lines at once, and as many packs as it must.
struct LinesLayout {
  static constexpr int kLineBytes = 128;
  static constexpr int kLinesPerPack = 8;
  static constexpr int kSlotsPerPack = 60;
  static constexpr std::int64_t kPackBytes = std::int64_t{kSlotsPerPack} * kSlotBytes;

  std::int64_t most_bytes;
  int most_blocks;
  int num_threads;

  constexpr int warps_per_block() const { return num_threads / 32; }
  constexpr std::int64_t most_warps() const {
    return std::int64_t{std::max(1, num_blocks(most_bytes))} * warps_per_block();
  }
  /// For which a warp has room in the buffer.
  constexpr std::int64_t packs_per_warp() const {
    return std::max<std::int64_t>(1, DivideUp(DivideUp(most_bytes, kPackBytes), most_warps()));
  }
  constexpr std::int64_t most_lines() const {
    return most_warps() * packs_per_warp() * kLinesPerPack;
  }
  /// Each warp has one pack, or all blocks are there: a warp's packs never are more than its room.
  constexpr int num_blocks(std::int64_t bytes) const {
    return static_cast<int>(std::min<std::int64_t>(
        DivideUp(DivideUp(bytes, kPackBytes), warps_per_block()), most_blocks));
  }
  /// Size of one rank's line buffer, which has places for the others alone.
  constexpr std::int64_t buffer_bytes(int num_ranks) const {
    return std::int64_t{2} * (num_ranks - 1) * most_lines() * kLineBytes;
  }
};

/// How a sum is pushed: every rank owns a slice, which travels in tiles. Tile i of block b is tile
/// b + i * num_blocks of every slice.
struct PushLayout {
  /// Tiles that a block may push before the first has been summed up. Deep enough that nobody
  /// waits for a flag on its way while the links are busy.
  static constexpr int kTileDepth = 8;

  /// Every rank's slice but the last has this many slots. Slices and tiles begin at lines of 128
  /// bytes.
  std::int64_t slice_slots;
  /// All blocks get as many tiles, of a size that divides the slice evenly.
  std::int64_t tile_slots;

  static constexpr PushLayout Of(std::int64_t slots, int num_ranks, int num_blocks,
                                 std::int64_t most_tile_bytes) {
    const std::int64_t slice_slots = RoundUp(DivideUp(slots, num_ranks), 8);
    const std::int64_t most_at_once = num_blocks * (most_tile_bytes / kSlotBytes);
    const std::int64_t tiles = num_blocks * DivideUp(slice_slots, most_at_once);
    return {slice_slots, RoundUp(DivideUp(slice_slots, tiles), 8)};
  }
  /// Size of one rank's tile buffer.
  static constexpr std::int64_t BufferBytes(int num_ranks, int num_blocks,
                                            std::int64_t most_tile_bytes) {
    return std::int64_t{num_blocks} * kTileDepth * (num_ranks - 1) * most_tile_bytes;
  }
};

/// What one rank's lines and tiles take of its GPU.
constexpr std::int64_t PeerBufferBytes(const AllReduceTuning& tuning, int num_ranks) {
  if (num_ranks == 1) return 0;
  const LinesLayout lines = {tuning.max_lines_bytes, tuning.lines_blocks, tuning.lines_threads};
  return lines.buffer_bytes(num_ranks) +
         PushLayout::BufferBytes(num_ranks, tuning.push_blocks, tuning.push_tile_bytes);
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_PLAN_H_
