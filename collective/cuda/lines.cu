#include <algorithm>

#include "lockstep/collective/cuda/lines.cuh"
#include "lockstep/collective/cuda/load_kernels.h"
#include "lockstep/collective/cuda/overlapped_launch.cuh"

namespace lockstep::internal::cuda {
namespace {

template <int kMost>
struct Work {
  Peers peers;
  unsigned char* lines[kMost] = {};
  unsigned char* own_lines;
  std::uint64_t* own_counters;
  std::int64_t max_lines;
  std::int64_t packs_per_warp;
  const void* in;
  void* out;
  std::int64_t count;
  ReduceOp op;
  bool aligned;
};

// One warp's part of a round: pack after pack, receiving some packs behind the sending, so that the
// links stay busy. A warp's lines, and the number of its rounds, are its own: it waits for the same
// warp of its peers and for nobody on this device.
template <typename T, int kMost>
class Carrier {
 public:
  __device__ Carrier(const Work<kMost>& work, std::int64_t warp, std::int64_t num_warps)
      : work_(work),
        peers_(work.peers),
        place_(threadIdx.x),
        warp_(warp),
        num_warps_(num_warps),
        counter_(work.own_counters + warp) {
    // Parameters come from memory that no launch finds in a cache. Read now, they come while the
    // kernel before is still at work.
    Touch(work.in);
    Touch(work.out);
    Touch(work.count);
    Touch(work.own_lines);
    Touch(work.max_lines);
    Touch(work.packs_per_warp);
#pragma unroll
    for (int r = 0; r < kMost; ++r) Touch(work.lines[r]);
  }

  __device__ void Run() {
    round_ = *counter_ + 1;
    half_ = static_cast<std::int64_t>(round_ % 2) * (peers_.num_ranks - 1);
    const std::int64_t packs =
        (work_.count * static_cast<std::int64_t>(sizeof(T)) + kPackBytes - 1) / kPackBytes;
    const std::int64_t turns = (packs - warp_ + num_warps_ - 1) / num_warps_;
    for (std::int64_t turn = 0; turn < turns + kLag; ++turn) {
      if (turn < turns) SendPack(turn);
      if (turn >= kLag && turn - kLag < turns && !ReceivePack(turn - kLag)) return;
    }
    if (place_.lane == 0 && turns > 0) *counter_ = round_;
  }

 private:
  // Packs that a warp sends ahead.
  static constexpr std::int64_t kLag = 1;

  __device__ std::int64_t PackAt(std::int64_t turn) const { return warp_ + turn * num_warps_; }
  // Where this lane's part of the pack stands among the lines from `source`, in owner's buffer.
  __device__ std::int64_t LineAt(std::int64_t turn, int source, int owner) const {
    return (half_ + PlaceOf(source, owner)) * work_.max_lines * kLineBytes +
           place_.first_line_at(warp_ * work_.packs_per_warp + turn);
  }
  __device__ Held<T> Own(std::int64_t turn) const {
    return LoadHeld(static_cast<const T*>(work_.in), place_, PackAt(turn), work_.count,
                    work_.aligned);
  }

  __device__ void SendPack(std::int64_t turn) {
    const Held<T> held = Own(turn);
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (r < peers_.num_ranks && r != peers_.rank) {
        Send(work_.lines[r] + LineAt(turn, peers_.rank, r), place_, held, round_);
      }
    }
  }

  __device__ bool ReceivePack(std::int64_t turn) {
    const Held<T> own = Own(turn);
    Slot<T> first[kMost];
    Slot<T> second[kMost];
#pragma unroll
    for (int r = 0; r < kMost; ++r) {
      if (r < peers_.num_ranks) {
        Held<T> held = own;
        if (r != peers_.rank && !Receive(work_.own_lines + LineAt(turn, r, peers_.rank), place_,
                                         round_, peers_.watch, r, held)) {
          return false;
        }
        first[r] = held.first;
        second[r] = held.second;
      }
    }
    Held<T> result = {};
    VisitOp(work_.op, [&]<ReduceOp kOp>() {
      result.first = ReduceSlots<kOp>(first, peers_.num_ranks);
      if (!place_.has_number()) result.second = ReduceSlots<kOp>(second, peers_.num_ranks);
    });
    T* const out = static_cast<T*>(work_.out);
    StoreSlot(out, place_.first_slot(PackAt(turn)), work_.count, work_.aligned, result.first);
    if (!place_.has_number()) {
      StoreSlot(out, place_.second_slot(PackAt(turn)), work_.count, work_.aligned, result.second);
    }
    return true;
  }

  const Work<kMost>& work_;
  const Peers& peers_;
  const Place place_;
  const std::int64_t warp_;
  const std::int64_t num_warps_;
  std::uint64_t* const counter_;
  std::uint64_t round_;
  std::int64_t half_;
};

template <typename T, int kMost>
__global__ void __launch_bounds__(512) LinesKernel(const __grid_constant__ Work<kMost> work) {
  const std::int64_t warps_per_block = blockDim.x / 32;
  Carrier<T, kMost> carrier(work, blockIdx.x * warps_per_block + threadIdx.x / 32,
                            gridDim.x * warps_per_block);
  AwaitWorkBefore();
  AdmitNext();
  carrier.Run();
}

template <int kMost>
Work<kMost> Narrowed(const LinesWork& work) {
  const auto aligned = [](const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % kSlotBytes == 0;
  };
  Work<kMost> narrow = {.peers = work.peers,
                        .own_lines = static_cast<unsigned char*>(work.lines[work.peers.rank]),
                        .own_counters = work.peers.inbox[work.peers.rank]->line_rounds,
                        .max_lines = work.layout.most_lines(),
                        .packs_per_warp = work.layout.packs_per_warp(),
                        .in = work.in,
                        .out = work.out,
                        .count = work.count,
                        .op = work.op,
                        .aligned = aligned(work.in) && aligned(work.out)};
  for (int rank = 0; rank < work.peers.num_ranks; ++rank) {
    narrow.lines[rank] = static_cast<unsigned char*>(work.lines[rank]);
  }
  return narrow;
}

template <typename T, int kMost>
cudaError_t Launch(const LinesWork& work, cudaStream_t stream) {
  const int blocks = work.layout.num_blocks(work.count * static_cast<std::int64_t>(sizeof(T)));
  return LaunchOverlapped(LinesKernel<T, kMost>, blocks, work.layout.num_threads, stream,
                          Narrowed<kMost>(work));
}

}  // namespace

cudaError_t LaunchLines(const LinesWork& work, cudaStream_t stream) {
  return VisitDType(work.dtype, [&]<typename T>() {
    if (work.peers.num_ranks <= 2) return Launch<T, 2>(work, stream);
    if (work.peers.num_ranks <= 4) return Launch<T, 4>(work, stream);
    return Launch<T, 8>(work, stream);
  });
}

cudaError_t LoadLinesKernels() {
  FirstError error;
  for (const DType dtype : kAllDTypes) {
    VisitDType(dtype, [&]<typename T>() {
      error.Load(LinesKernel<T, 2>);
      error.Load(LinesKernel<T, 4>);
      error.Load(LinesKernel<T, 8>);
    });
  }
  return error.get();
}

}  // namespace lockstep::internal::cuda
