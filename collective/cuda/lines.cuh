// Lines that carry their own flag: what the kernels that travel by them share.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_

#include "lockstep/collective/cuda/kernels.h"
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
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

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

template <typename T>
__device__ __forceinline__ void Send(unsigned char* to, const Place& place, const Held<T>& held,
                                     std::uint64_t round) {
  Words first = AsWords(held.first);
  Words second = AsWords(held.second);
  if (place.has_number()) {
    second = {first.second, round};
    first.second = round;
  }
  // Eight lanes write a line with one instruction: in two, its number could overtake its data.
  __syncwarp();
  StoreWords(to, first);
  StoreWords(to + Place::kToSecondLine, second);
}

/// Polls until both lines are of this round; false when it is time to leave. All lanes of a warp
/// together.
template <typename T>
__device__ __forceinline__ bool Receive(const unsigned char* from, const Place& place,
                                        std::uint64_t round, const Watch& watch, int peer,
                                        Held<T>& held) {
  Patience patience(watch);
  for (;;) {
    const Words first = LoadWords(from);
    const Words second = LoadWords(from + Place::kToSecondLine);
    const bool here = !place.has_number() || (first.second == round && second.second == round);
    if (__all_sync(kAllLanes, here)) {
      held.first = place.has_number() ? AsSlot<T>({first.first, second.first}) : AsSlot<T>(first);
      held.second = AsSlot<T>(second);
      return true;
    }
    if (!__all_sync(kAllLanes, place.lane != 0 || patience.Lasts(peer))) return false;
  }
}

/// A line without data: that this rank has come to the round. ReceiveSign polls until it is there.
__device__ __forceinline__ void SendSign(unsigned char* to, const Place& place,
                                         std::uint64_t round) {
  __syncwarp();
  if (place.pair == 0) StoreWords(to, {0, place.has_number() ? round : 0});
}
__device__ __forceinline__ bool ReceiveSign(const unsigned char* from, const Place& place,
                                            std::uint64_t round, const Watch& watch, int peer) {
  Patience patience(watch);
  for (;;) {
    const bool looks = place.pair == 0 && place.has_number();
    if (__all_sync(kAllLanes, !looks || LoadWords(from).second == round)) return true;
    if (!__all_sync(kAllLanes, place.lane != 0 || patience.Lasts(peer))) return false;
  }
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_LINES_CUH_
