// Lines that carry their own flag: what the kernels that travel by them share.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/overlapped_launch.cuh"
#include "lockstep/collective/cuda/signals.cuh"
#include "lockstep/collective/cuda/tree.cuh"

namespace lockstep::internal::cuda {

/// A line is 128 bytes, written and read by eight neighbouring lanes, 16 bytes each; the last eight
/// bytes are the round's number. Two lines together carry 15 slots: lane j below 7 has slot j in
/// the first line and slot 8 + j in the second, and lane 7 has one half of slot 7 in each. A warp
/// handles a pack: four such pairs.
inline constexpr int kLineBytes = LinesLayout::kLineBytes;
inline constexpr int kSlotsPerPair = 15;
inline constexpr int kPairsPerPack = 4;
inline constexpr int kLinesPerPack = LinesLayout::kLinesPerPack;
inline constexpr int kSlotsPerPack = LinesLayout::kSlotsPerPack;
inline constexpr std::int64_t kPackBytes = LinesLayout::kPackBytes;
static_assert(kLinesPerPack == 2 * kPairsPerPack);
static_assert(kSlotsPerPack == kSlotsPerPair * kPairsPerPack);

struct Words {
  std::uint64_t first;
  std::uint64_t second;
};

/// Data and number of the round travel in one line: neither can be seen without the other, so no
/// order is asked for. StoreWords pairs with LoadWords.
__device__ __forceinline__ void StoreWords(unsigned char* to, Words words) {
  asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(words.first),
               "l"(words.second)
               : "memory");
}
__device__ __forceinline__ Words LoadWords(const unsigned char* from) {
  Words words;
  asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
               : "=l"(words.first), "=l"(words.second)
               : "l"(from)
               : "memory");
  return words;
}

/// Where `source` stands among those that send to `owner`.
__device__ __forceinline__ int PlaceOf(int source, int owner) {
  return source > owner ? source - 1 : source;
}

/// This lane's slots of a pack, and its place in the pack's lines.
struct Place {
  __device__ explicit Place(unsigned thread)
      : lane(static_cast<int>(thread % 32)), of_line(lane % 8), pair(lane / 8) {}
  __device__ bool has_number() const { return of_line == 7; }
  __device__ std::int64_t first_slot(std::int64_t pack) const {
    return pack * kSlotsPerPack + pair * kSlotsPerPair + of_line;
  }
  /// Not for lane 7, whose one slot is split.
  __device__ std::int64_t second_slot(std::int64_t pack) const { return first_slot(pack) + 8; }
  __device__ std::int64_t first_line_at(std::int64_t pack) const {
    return (pack * kLinesPerPack + pair) * kLineBytes + of_line * kSlotBytes;
  }
  static constexpr int kToSecondLine = kPairsPerPack * kLineBytes;

  int lane;
  int of_line;
  int pair;
};

/// What a lane holds of a pack: two slots, or one.
template <typename T>
struct Held {
  Slot<T> first;
  Slot<T> second;
};

template <typename T>
__device__ __forceinline__ Words AsWords(const Slot<T>& slot) {
  return *reinterpret_cast<const Words*>(&slot);
}
template <typename T>
__device__ __forceinline__ Slot<T> AsSlot(const Words& words) {
  return *reinterpret_cast<const Slot<T>*>(&words);
}

template <typename T>
__device__ __forceinline__ Held<T> LoadHeld(const T* data, const Place& place, std::int64_t pack,
                                            std::int64_t count, bool aligned) {
  Held<T> held = {};
  held.first = LoadSlot(data, place.first_slot(pack), count, aligned);
  if (!place.has_number()) {
    held.second = LoadSlot(data, place.second_slot(pack), count, aligned);
  }
  return held;
}

/// LineBuffers as a kernel for up to kMax ranks finds them.
template <int kMax>
struct NarrowBuffers {
  Peers peers;
  unsigned char* lines[kMax] = {};
  unsigned char* own_lines;
  std::uint64_t* own_counters;
  std::int64_t max_lines;
  std::int64_t packs_per_warp;
  bool overlaps;
};
template <int kMax>
NarrowBuffers<kMax> Narrowed(const LineBuffers& buffers) {
  const Peers& peers = buffers.peers;
  NarrowBuffers<kMax> narrow = {.peers = peers,
                                .own_lines = static_cast<unsigned char*>(buffers.lines[peers.rank]),
                                .own_counters = peers.inbox[peers.rank]->line_rounds,
                                .max_lines = buffers.layout.max_lines(),
                                .packs_per_warp = buffers.layout.packs_per_warp(),
                                .overlaps = buffers.shape.overlaps()};
  for (int r = 0; r < peers.world_size; ++r) {
    narrow.lines[r] = static_cast<unsigned char*>(buffers.lines[r]);
  }
  return narrow;
}

template <int kMax>
__device__ __forceinline__ void TouchBuffers(const NarrowBuffers<kMax>& buffers) {
  Touch(buffers.own_lines);
  Touch(buffers.max_lines);
  Touch(buffers.packs_per_warp);
#pragma unroll
  for (int r = 0; r < kMax; ++r) Touch(buffers.lines[r]);
}

/// One warp's part of a round: pack after pack, receiving some packs behind the sending, so that
/// the links stay busy. A warp's lines, and the number of its rounds, are its own: it waits for the
/// same warp of its peers and for nobody on this device.
template <int kMax>
class LineRound {
 public:
  __device__ explicit LineRound(const NarrowBuffers<kMax>& buffers)
      : buffers_(buffers),
        peers_(buffers.peers),
        place_(threadIdx.x),
        warp_(std::int64_t{blockDim.x / 32} * blockIdx.x + threadIdx.x / 32),
        num_warps_(std::int64_t{blockDim.x / 32} * gridDim.x),
        counter_(buffers.own_counters + warp_) {}

  /// Calls send(turn), and behind it receive(turn), for each of this warp's packs, until that says
  /// that it is time to leave.
  template <typename SendPack, typename ReceivePack>
  __device__ void Run(std::int64_t packs, SendPack send, ReceivePack receive) {
    round_ = *counter_ + 1;
    half_ = static_cast<std::int64_t>(round_ % 2) * (peers_.world_size - 1);
    const std::int64_t turns = (packs - warp_ + num_warps_ - 1) / num_warps_;
    for (std::int64_t turn = 0; turn < turns + kLag; ++turn) {
      if (turn < turns) send(turn);
      if (turn >= kLag && turn - kLag < turns && !receive(turn - kLag)) return;
    }
    if (place_.lane == 0 && turns > 0) *counter_ = round_;
  }

  __device__ const Place& place() const { return place_; }
  __device__ std::int64_t PackAt(std::int64_t turn) const { return warp_ + turn * num_warps_; }

  /// Where this lane's part of the pack goes to in the buffer of `peer`.
  __device__ unsigned char* Outgoing(std::int64_t turn, int peer) const {
    return buffers_.lines[peer] + LineAt(turn, peers_.rank, peer);
  }
  template <typename T>
  __device__ __forceinline__ void Send(unsigned char* to, const Held<T>& held) const {
    Words first = AsWords(held.first);
    Words second = AsWords(held.second);
    if (place_.has_number()) {
      second = {first.second, round_};
      first.second = round_;
    }
    // Eight lanes write a line with one instruction: in two, its number could overtake its data.
    __syncwarp();
    StoreWords(to, first);
    StoreWords(to + Place::kToSecondLine, second);
  }
  /// Polls until both lines are of this round; false when it is time to leave. All lanes of a warp
  /// together.
  template <typename T>
  __device__ __forceinline__ bool Receive(std::int64_t turn, int peer, Held<T>& held) const {
    const unsigned char* const from = Incoming(turn, peer);
    Patience patience(peers_.watch);
    for (;;) {
      const Words first = LoadWords(from);
      const Words second = LoadWords(from + Place::kToSecondLine);
      const bool here = !place_.has_number() || (first.second == round_ && second.second == round_);
      if (__all_sync(kAllLanes, here)) {
        held.first =
            place_.has_number() ? AsSlot<T>({first.first, second.first}) : AsSlot<T>(first);
        held.second = AsSlot<T>(second);
        return true;
      }
      if (!__all_sync(kAllLanes, place_.lane != 0 || patience.Lasts(peer))) return false;
    }
  }

  /// A line without data: that this rank has come to the round. ReceiveSign polls until it is
  /// there.
  __device__ __forceinline__ void SendSign(unsigned char* to) const {
    __syncwarp();
    if (place_.pair == 0) StoreWords(to, {0, place_.has_number() ? round_ : 0});
  }
  __device__ __forceinline__ bool ReceiveSign(std::int64_t turn, int peer) const {
    const unsigned char* const from = Incoming(turn, peer);
    Patience patience(peers_.watch);
    for (;;) {
      const bool looks = place_.pair == 0 && place_.has_number();
      if (__all_sync(kAllLanes, !looks || LoadWords(from).second == round_)) return true;
      if (!__all_sync(kAllLanes, place_.lane != 0 || patience.Lasts(peer))) return false;
    }
  }

 private:
  // Packs that a warp sends ahead.
  static constexpr std::int64_t kLag = 1;

  // Where this lane's part of the pack stands among the lines from `source`, in owner's buffer.
  __device__ std::int64_t LineAt(std::int64_t turn, int source, int owner) const {
    return (half_ + PlaceOf(source, owner)) * buffers_.max_lines * kLineBytes +
           place_.first_line_at(warp_ * buffers_.packs_per_warp + turn);
  }
  __device__ const unsigned char* Incoming(std::int64_t turn, int peer) const {
    return buffers_.own_lines + LineAt(turn, peer, peers_.rank);
  }

  const NarrowBuffers<kMax>& buffers_;
  const Peers& peers_;
  const Place place_;
  const std::int64_t warp_;
  const std::int64_t num_warps_;
  std::uint64_t* const counter_;
  std::uint64_t round_;
  std::int64_t half_;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_
