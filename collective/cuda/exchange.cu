#include <algorithm>

#include "lockstep/collective/cuda/lines.cuh"
#include "lockstep/collective/cuda/load_kernels.h"
#include "lockstep/collective/cuda/overlapped_launch.cuh"

namespace lockstep::internal::cuda {
namespace {

// A Part as a kernel finds it.
template <typename T>
struct Elements {
  T* data;
  std::int64_t count;
  std::int64_t width;
  std::int64_t pitch;
  bool contiguous;
  // Slots lie within rows and begin at multiples of 16 bytes.
  bool aligned;

  __device__ __forceinline__ Slot<T> Load(std::int64_t slot) const {
    Slot<T> loaded = {};
    VisitSlot(
        slot, [&](const Slot<T>* whole) { loaded = *whole; },
        [&](int lane, const T* element) { loaded.lanes[lane] = *element; });
    return loaded;
  }
  __device__ __forceinline__ void Store(std::int64_t slot, const Slot<T>& stored) const {
    VisitSlot(
        slot, [&](Slot<T>* whole) { *whole = stored; },
        [&](int lane, T* element) { *element = stored.lanes[lane]; });
  }
  __device__ __forceinline__ bool Has(std::int64_t pack) const {
    return pack * kSlotsPerPack * Slot<T>::kLanes < count;
  }
  __device__ __forceinline__ Held<T> LoadPack(const Place& place, std::int64_t pack) const {
    Held<T> held = {};
    held.first = Load(place.first_slot(pack));
    if (!place.has_number()) held.second = Load(place.second_slot(pack));
    return held;
  }
  __device__ __forceinline__ void StorePack(const Place& place, std::int64_t pack,
                                            const Held<T>& held) const {
    Store(place.first_slot(pack), held.first);
    if (!place.has_number()) Store(place.second_slot(pack), held.second);
  }

 private:
  // The slot as a whole where it may be touched so, or else those of its elements that there are.
  template <typename Whole, typename Each>
  __device__ __forceinline__ void VisitSlot(std::int64_t slot, Whole whole, Each each) const {
    constexpr int kLanes = Slot<T>::kLanes;
    const std::int64_t begin = slot * kLanes;
    std::int64_t left_of_row = count;
    T* at = data + begin;
    if (!contiguous) {
      const std::int64_t row = begin / width;
      left_of_row = (row + 1) * width - begin;
      at += row * (pitch - width);
    }
    if (aligned && begin + kLanes <= count) return whole(reinterpret_cast<Slot<T>*>(at));
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      if (begin + lane < count) each(lane, at);
      ++at;
      if (--left_of_row == 0) {
        left_of_row = width;
        at += pitch - width;
      }
    }
  }
};

template <typename T, int kMost>
struct Work {
  Peers peers;
  unsigned char* lines[kMost] = {};
  unsigned char* own_lines;
  std::uint64_t* own_counters;
  std::int64_t max_lines;
  std::int64_t packs_per_warp;
  std::int64_t packs;
  Elements<T> send[kMost] = {};
  Elements<T> receive[kMost] = {};
  ReduceOp op;
};

// One warp's part of a round, as in an all-reduce by lines. In its first turn it sends a sign where
// it has no data, so that nobody gets two rounds ahead of anybody. A warp has sent a pack before it
// writes to the same elements of the output, which may be the input.
template <typename T, int kMost, bool kReduces>
class Exchanger {
 public:
  __device__ Exchanger(const Work<T, kMost>& work, std::int64_t warp, std::int64_t num_warps)
      : work_(work),
        peers_(work.peers),
        place_(threadIdx.x),
        warp_(warp),
        num_warps_(num_warps),
        counter_(work.own_counters + warp) {}

  __device__ void Run() {
    round_ = *counter_ + 1;
    half_ = static_cast<std::int64_t>(round_ % 2) * (peers_.num_ranks - 1);
    const std::int64_t turns = (work_.packs - warp_ + num_warps_ - 1) / num_warps_;
    for (std::int64_t turn = 0; turn < turns + kLag; ++turn) {
      if (turn < turns) SendPack(turn);
      if (turn < kLag || turn - kLag >= turns) continue;
      bool received;
      if constexpr (kReduces) {
        received = ReducePack(turn - kLag);
      } else {
        received = ReceivePack(turn - kLag);
      }
      if (!received) return;
    }
    if (place_.lane == 0 && turns > 0) *counter_ = round_;
  }

 private:
  // Packs that a warp sends ahead.
  static constexpr std::int64_t kLag = 1;

  __device__ bool IsPeer(int rank) const { return rank < peers_.num_ranks && rank != peers_.rank; }
  __device__ std::int64_t PackAt(std::int64_t turn) const { return warp_ + turn * num_warps_; }
  // Where this lane's part of the pack stands among the lines from `source`, in owner's buffer.
  __device__ std::int64_t LineAt(std::int64_t turn, int source, int owner) const {
    return (half_ + PlaceOf(source, owner)) * work_.max_lines * kLineBytes +
           place_.first_line_at(warp_ * work_.packs_per_warp + turn);
  }
  __device__ const unsigned char* Incoming(std::int64_t turn, int source) const {
    return work_.own_lines + LineAt(turn, source, peers_.rank);
  }

  __device__ void SendPack(std::int64_t turn) {
    const std::int64_t pack = PackAt(turn);
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (!IsPeer(r)) continue;
      unsigned char* const to = work_.lines[r] + LineAt(turn, peers_.rank, r);
      if (work_.send[r].Has(pack)) {
        Send(to, place_, work_.send[r].LoadPack(place_, pack), round_);
      } else if (turn == 0) {
        SendSign(to, place_, round_);
      }
    }
  }

  __device__ bool ReceivePack(std::int64_t turn) {
    const std::int64_t pack = PackAt(turn);
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (r >= peers_.num_ranks) continue;
      const Elements<T>& to = work_.receive[r];
      if (r == peers_.rank) {
        if (to.Has(pack)) to.StorePack(place_, pack, work_.send[r].LoadPack(place_, pack));
      } else if (to.Has(pack)) {
        Held<T> held;
        if (!Receive(Incoming(turn, r), place_, round_, peers_.watch, r, held)) return false;
        to.StorePack(place_, pack, held);
      } else if (turn == 0) {
        if (!ReceiveSign(Incoming(turn, r), place_, round_, peers_.watch, r)) return false;
      }
    }
    return true;
  }

  __device__ bool ReducePack(std::int64_t turn) {
    const std::int64_t pack = PackAt(turn);
    // One place for all.
    const Elements<T>& to = work_.receive[0];
    const bool has = to.Has(pack);
    if (!has && turn > 0) return true;
    Slot<T> first[kMost];
    Slot<T> second[kMost];
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (r >= peers_.num_ranks) continue;
      Held<T> held = {};
      if (r == peers_.rank) {
        held = work_.send[r].LoadPack(place_, pack);
      } else if (!(has ? Receive(Incoming(turn, r), place_, round_, peers_.watch, r, held)
                       : ReceiveSign(Incoming(turn, r), place_, round_, peers_.watch, r))) {
        return false;
      }
      first[r] = held.first;
      second[r] = held.second;
    }
    if (!has) return true;
    VisitOp(work_.op, [&]<ReduceOp kOp>() {
      // Stored here: behind the choice, the 64-bit types of eight ranks spill registers.
      Held<T> result = {};
      result.first = ReduceSlots<kOp>(first, peers_.num_ranks);
      if (!place_.has_number()) result.second = ReduceSlots<kOp>(second, peers_.num_ranks);
      to.StorePack(place_, pack, result);
    });
    return true;
  }

  const Work<T, kMost>& work_;
  const Peers& peers_;
  const Place place_;
  const std::int64_t warp_;
  const std::int64_t num_warps_;
  std::uint64_t* const counter_;
  std::uint64_t round_;
  std::int64_t half_;
};

template <typename T, int kMost, bool kReduces>
__global__ void __launch_bounds__(512) ExchangeKernel(const __grid_constant__ Work<T, kMost> work) {
  const std::int64_t warps_per_block = blockDim.x / 32;
  Exchanger<T, kMost, kReduces> exchanger(work, blockIdx.x * warps_per_block + threadIdx.x / 32,
                                          gridDim.x * warps_per_block);
  AwaitWorkBefore();
  AdmitNext();
  exchanger.Run();
}

template <typename T>
Elements<T> AsElements(const Part& part) {
  constexpr std::int64_t kLanes = Slot<T>::kLanes;
  return {.data = static_cast<T*>(part.data),
          .count = part.count,
          .width = part.width,
          .pitch = part.pitch,
          .contiguous = part.contiguous(),
          .aligned = reinterpret_cast<std::uintptr_t>(part.data) % kSlotBytes == 0 &&
                     (part.contiguous() || (part.width % kLanes == 0 && part.pitch % kLanes == 0))};
}

template <typename T, int kMost, bool kReduces>
cudaError_t LaunchFor(const ExchangeWork& work, cudaStream_t stream) {
  const std::int64_t bytes = work.plan.largest * static_cast<std::int64_t>(sizeof(T));
  Work<T, kMost> narrow = {.peers = work.peers,
                           .own_lines = static_cast<unsigned char*>(work.lines[work.peers.rank]),
                           .own_counters = work.peers.inbox[work.peers.rank]->line_rounds,
                           .max_lines = work.layout.most_lines(),
                           .packs_per_warp = work.layout.packs_per_warp(),
                           .packs = DivideUp(bytes, kPackBytes),
                           .op = work.op};
  for (int rank = 0; rank < work.peers.num_ranks; ++rank) {
    narrow.lines[rank] = static_cast<unsigned char*>(work.lines[rank]);
    narrow.send[rank] = AsElements<T>(work.plan.send[rank]);
    narrow.receive[rank] = AsElements<T>(work.plan.receive[rank]);
  }
  return LaunchOverlapped(ExchangeKernel<T, kMost, kReduces>, work.layout.num_blocks(bytes),
                          work.layout.num_threads, stream, narrow);
}

// Calls visitor<kMost>() for the least kMost that holds so many ranks.
template <typename Visitor>
cudaError_t VisitMost(int num_ranks, Visitor&& visitor) {
  if (num_ranks <= 2) return visitor.template operator()<2>();
  if (num_ranks <= 4) return visitor.template operator()<4>();
  return visitor.template operator()<8>();
}

// What only moves has a kernel for each size, not for each type.
template <typename Visitor>
cudaError_t VisitSize(DType dtype, Visitor&& visitor) {
  switch (SizeOf(dtype)) {
    case 2:
      return visitor.template operator()<std::uint16_t>();
    case 4:
      return visitor.template operator()<std::uint32_t>();
    default:
      return visitor.template operator()<std::uint64_t>();
  }
}

}  // namespace

cudaError_t LaunchExchange(const ExchangeWork& work, cudaStream_t stream) {
  return VisitMost(work.peers.num_ranks, [&]<int kMost>() {
    if (!work.plan.reduces) {
      return VisitSize(work.dtype,
                       [&]<typename T>() { return LaunchFor<T, kMost, false>(work, stream); });
    }
    return VisitDType(work.dtype,
                      [&]<typename T>() { return LaunchFor<T, kMost, true>(work, stream); });
  });
}

cudaError_t LoadExchangeKernels() {
  FirstError error;
  for (const int num_ranks : {2, 4, 8}) {
    VisitMost(num_ranks, [&]<int kMost>() {
      for (const DType dtype : kAllDTypes) {
        VisitDType(dtype, [&]<typename T>() { error.Load(ExchangeKernel<T, kMost, true>); });
        VisitSize(dtype, [&]<typename T>() {
          error.Load(ExchangeKernel<T, kMost, false>);
          return cudaSuccess;
        });
      }
      return cudaSuccess;
    });
  }
  return error.get();
}

}  // namespace lockstep::internal::cuda
