#include <algorithm>

#include "lockstep/collective/cuda/lines.cuh"

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
    if (begin >= count) return;
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

template <typename T, int kMax>
struct ExchangeArguments {
  NarrowBuffers<kMax> buffers;
  std::int64_t packs;
  Elements<T> send[kMax] = {};
  Elements<T> receive[kMax] = {};
  ReduceOp op;
};

// One warp's part. In its first turn it sends a sign where it has no data, so that nobody gets two
// rounds ahead of anybody. A warp has sent a pack before it writes to the same elements of the
// output, which may be the input.
template <typename T, int kMax, bool kReduces>
class Exchanger {
 public:
  __device__ explicit Exchanger(const ExchangeArguments<T, kMax>& all)
      : all_(all), peers_(all.buffers.peers), round_(all.buffers) {
    Touch(all.packs);
    TouchBuffers(all.buffers);
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      Touch(all.send[r].data);
      Touch(all.send[r].count);
      Touch(all.receive[r].data);
      Touch(all.receive[r].count);
    }
  }

  __device__ void Run() {
    round_.Run(
        all_.packs, [this](std::int64_t turn) { SendPack(turn); },
        [this](std::int64_t turn) {
          if constexpr (kReduces) {
            return ReducePack(turn);
          } else {
            return ReceivePack(turn);
          }
        });
  }

 private:
  __device__ void SendPack(std::int64_t turn) {
    const std::int64_t pack = round_.PackAt(turn);
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (!IsPeer(peers_, r)) continue;
      unsigned char* const to = round_.Outgoing(turn, r);
      if (all_.send[r].Has(pack)) {
        round_.Send(to, all_.send[r].LoadPack(round_.place(), pack));
      } else if (turn == 0) {
        round_.SendSign(to);
      }
    }
  }

  __device__ bool ReceivePack(std::int64_t turn) {
    const std::int64_t pack = round_.PackAt(turn);
    const Place& place = round_.place();
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (r >= peers_.world_size) continue;
      const Elements<T>& to = all_.receive[r];
      if (r == peers_.rank) {
        if (to.Has(pack)) to.StorePack(place, pack, all_.send[r].LoadPack(place, pack));
      } else if (to.Has(pack)) {
        Held<T> held;
        if (!round_.Receive(turn, r, held)) return false;
        to.StorePack(place, pack, held);
      } else if (turn == 0) {
        if (!round_.ReceiveSign(turn, r)) return false;
      }
    }
    return true;
  }

  __device__ bool ReducePack(std::int64_t turn) {
    const std::int64_t pack = round_.PackAt(turn);
    const Place& place = round_.place();
    // One place for all.
    const Elements<T>& to = all_.receive[0];
    const bool has = to.Has(pack);
    if (!has && turn > 0) return true;
    Slot<T> first[kMax];
    Slot<T> second[kMax];
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (r >= peers_.world_size) continue;
      Held<T> held = {};
      if (r == peers_.rank) {
        held = all_.send[r].LoadPack(place, pack);
      } else if (!(has ? round_.Receive(turn, r, held) : round_.ReceiveSign(turn, r))) {
        return false;
      }
      first[r] = held.first;
      second[r] = held.second;
    }
    if (!has) return true;
    VisitOp(all_.op, [&]<ReduceOp kOp>() {
      // Stored here: behind the choice, the 64-bit types of eight ranks spill registers.
      Held<T> result = {};
      result.first = ReduceSlots<kOp>(first, peers_.world_size);
      if (!place.has_number()) result.second = ReduceSlots<kOp>(second, peers_.world_size);
      to.StorePack(place, pack, result);
    });
    return true;
  }

  const ExchangeArguments<T, kMax>& all_;
  const Peers& peers_;
  LineRound<kMax> round_;
};

template <typename T, int kMax, bool kReduces>
__global__ void __launch_bounds__(LinesLayout::kMaxThreads)
    ExchangeKernel(const __grid_constant__ ExchangeArguments<T, kMax> all) {
  Exchanger<T, kMax, kReduces> exchanger(all);
  AwaitWorkBefore();
  if (all.buffers.overlaps) AdmitNext();
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
          .aligned = IsAligned(part.data) &&
                     (part.contiguous() || (part.width % kLanes == 0 && part.pitch % kLanes == 0))};
}

template <typename T, int kMax, bool kReduces>
cudaError_t LaunchFor(const ExchangeWork& work, cudaStream_t stream) {
  const LineBuffers& buffers = work.buffers;
  const std::int64_t bytes = work.plan.largest * static_cast<std::int64_t>(sizeof(T));
  ExchangeArguments<T, kMax> all = {
      .buffers = Narrowed<kMax>(buffers), .packs = DivideUp(bytes, kPackBytes), .op = work.op};
  for (int rank = 0; rank < buffers.peers.world_size; ++rank) {
    all.send[rank] = AsElements<T>(work.plan.send[rank]);
    all.receive[rank] = AsElements<T>(work.plan.receive[rank]);
  }
  return LaunchOverlapped(ExchangeKernel<T, kMax, kReduces>, buffers.shape, stream, all);
}

}  // namespace

cudaError_t LaunchExchange(const ExchangeWork& work, cudaStream_t stream) {
  return VisitKernel(work.dtype, work.buffers.peers.world_size, [&]<typename T, int kMax>() {
    return work.plan.reduces ? LaunchFor<T, kMax, true>(work, stream)
                             : LaunchFor<Bits<T>, kMax, false>(work, stream);
  });
}

void LoadExchangeKernels(KernelLoader& loader) {
  ForEachKernel([&]<typename T, int kMax>() {
    loader.Load(ExchangeKernel<T, kMax, true>);
    loader.Load(ExchangeKernel<Bits<T>, kMax, false>);
  });
}

}  // namespace lockstep::internal::cuda
