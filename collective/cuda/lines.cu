#include "lockstep/collective/cuda/lines.cuh"

namespace lockstep::internal::cuda {
namespace {

template <int kMax>
struct LinesArguments {
  NarrowBuffers<kMax> buffers;
  const void* in;
  void* out;
  std::int64_t count;
  std::int64_t packs;
  ReduceOp op;
  bool aligned;
};

template <typename T, int kMax>
class Carrier {
 public:
  __device__ explicit Carrier(const LinesArguments<kMax>& all)
      : all_(all), peers_(all.buffers.peers), round_(all.buffers) {
    Touch(all.in);
    Touch(all.out);
    Touch(all.count);
    Touch(all.packs);
    TouchBuffers(all.buffers);
  }

  __device__ void Run() {
    round_.Run(
        all_.packs, [this](std::int64_t turn) { SendPack(turn); },
        [this](std::int64_t turn) { return ReceivePack(turn); });
  }

 private:
  __device__ Held<T> Own(std::int64_t turn) const {
    return LoadHeld(static_cast<const T*>(all_.in), round_.place(), round_.PackAt(turn), all_.count,
                    all_.aligned);
  }

  __device__ void SendPack(std::int64_t turn) {
    const Held<T> held = Own(turn);
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (IsPeer(peers_, r)) round_.Send(round_.Outgoing(turn, r), held);
    }
  }

  __device__ bool ReceivePack(std::int64_t turn) {
    const Held<T> own = Own(turn);
    Slot<T> first[kMax];
    Slot<T> second[kMax];
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (r < peers_.world_size) {
        Held<T> held = own;
        if (r != peers_.rank && !round_.Receive(turn, r, held)) return false;
        first[r] = held.first;
        second[r] = held.second;
      }
    }
    const Place& place = round_.place();
    Held<T> result = {};
    VisitOp(all_.op, [&]<ReduceOp kOp>() {
      result.first = ReduceSlots<kOp>(first, peers_.world_size);
      if (!place.has_number()) result.second = ReduceSlots<kOp>(second, peers_.world_size);
    });
    T* const out = static_cast<T*>(all_.out);
    const std::int64_t pack = round_.PackAt(turn);
    StoreSlot(out, place.first_slot(pack), all_.count, all_.aligned, result.first);
    if (!place.has_number()) {
      StoreSlot(out, place.second_slot(pack), all_.count, all_.aligned, result.second);
    }
    return true;
  }

  const LinesArguments<kMax>& all_;
  const Peers& peers_;
  LineRound<kMax> round_;
};

template <typename T, int kMax>
__global__ void __launch_bounds__(LinesLayout::kMaxThreads)
    LinesKernel(const __grid_constant__ LinesArguments<kMax> all) {
  Carrier<T, kMax> carrier(all);
  AwaitWorkBefore();
  if (all.buffers.overlaps) AdmitNext();
  carrier.Run();
}

}  // namespace

cudaError_t LaunchLines(const LinesWork& work, cudaStream_t stream) {
  return VisitKernel(work.dtype, work.buffers.peers.world_size, [&]<typename T, int kMax>() {
    const LinesArguments<kMax> all = {
        .buffers = Narrowed<kMax>(work.buffers),
        .in = work.in,
        .out = work.out,
        .count = work.count,
        .packs = DivideUp(work.count * static_cast<std::int64_t>(sizeof(T)), kPackBytes),
        .op = work.op,
        .aligned = IsAligned(work.in) && IsAligned(work.out)};
    return LaunchOverlapped(LinesKernel<T, kMax>, work.buffers.shape, stream, all);
  });
}

void LoadLinesKernels(KernelLoader& loader) {
  ForEachKernel([&]<typename T, int kMax>() { loader.Load(LinesKernel<T, kMax>); });
}

}  // namespace lockstep::internal::cuda
