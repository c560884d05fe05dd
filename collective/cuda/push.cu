#include <algorithm>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/overlapped_launch.cuh"
#include "lockstep/collective/cuda/signals.cuh"
#include "lockstep/collective/cuda/tree.cuh"

namespace lockstep::internal::cuda {
namespace {

constexpr int kTileDepth = PushLayout::kTileDepth;
// A block has threads that push, as many that sum, and a warp for each that tells the peers.
// Telling waits until all writes before have arrived; in warps of its own, nobody waits with it.
template <int kMax>
constexpr int kGroupThreadsFor = kMax <= 2 ? 448 : 256;
template <int kMax>
constexpr int kThreads = 2 * kGroupThreadsFor<kMax> + 2 * 32;

// Slots of 16 bytes that a thread has in flight for each rank.
constexpr int SlotsPerThread(int max_ranks) { return max_ranks <= 2 ? 2 : 1; }

template <int kMax>
struct PushArguments {
  Peers peers;
  uint4* tiles[kMax] = {};
  uint4* own_tiles;
  Inbox* own_inbox;
  const void* in;
  void* out[kMax] = {};
  std::int64_t count;
  ReduceOp op;
  std::int64_t slice_slots;
  std::int64_t tile_slots;
  std::int64_t max_tile_slots;
  bool overlaps;
};

// What the threads of a block share: for each place of the ring, how often a tile has been pushed,
// and how often one has been summed, by all threads of the group (PTX's mbarrier). A barrier cannot
// be overrun: a place is used again when its tile has been told to the peers and they are done.
struct Shared {
  std::uint64_t pushed[kTileDepth];
  std::uint64_t summed[kTileDepth];
  int failed;
};

__device__ __forceinline__ unsigned AddressOf(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
__device__ __forceinline__ void InitBarrier(std::uint64_t* barrier, int num_threads) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(AddressOf(barrier)), "r"(num_threads)
               : "memory");
}
// Releases what this thread wrote to whoever finds the barrier complete.
__device__ __forceinline__ void Arrive(std::uint64_t* barrier) {
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(AddressOf(barrier))
      : "memory");
}
__device__ __forceinline__ bool IsComplete(const std::uint64_t* barrier, unsigned parity) {
  unsigned complete;
  asm volatile(
      "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(complete)
      : "r"(AddressOf(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
}

// One block's part of a round (see PushLayout).
template <typename T, int kMax>
class Pusher {
 public:
  __device__ Pusher(const PushArguments<kMax>& all, Shared& shared)
      : all_(all),
        peers_(all.peers),
        shared_(shared),
        block_(static_cast<int>(blockIdx.x)),
        inbox_(all.own_inbox),
        before_(inbox_->tiles_before[block_]) {
    const std::int64_t tiles = (all.slice_slots + all.tile_slots - 1) / all.tile_slots;
    num_tiles_ = tiles <= block_ ? 0 : (tiles - block_ + gridDim.x - 1) / gridDim.x;
  }

  __device__ void Run() {
    const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
    bool lasts = true;
    if (group == 0) {
      for (std::int64_t i = 0; i < num_tiles_ && lasts; ++i) lasts = PushTile(i);
    } else if (group == 1) {
      for (std::int64_t i = 0; i < num_tiles_ && lasts; ++i) lasts = SumTile(i);
    } else if (threadIdx.x < 2 * kGroupThreads + 32) {
      lasts = TellTiles(shared_.pushed, &Inbox::pushed);
    } else {
      lasts = TellTiles(shared_.summed, &Inbox::done);
      // Everyone's results are in this rank's output.
      const int peer = static_cast<int>(threadIdx.x) % 32;
      if (lasts && IsPeer(peers_, peer)) lasts = AwaitTiles(inbox_->done[block_], peer, num_tiles_);
    }
    if (!lasts) Fail();
    __syncthreads();
    if (threadIdx.x == 0 && shared_.failed == 0)
      inbox_->tiles_before[block_] = before_ + num_tiles_;
  }

 private:
  static constexpr int kGroupThreads = kGroupThreadsFor<kMax>;
  static constexpr int kPerThread = SlotsPerThread(kMax);
  static constexpr int kBatch = kGroupThreads * kPerThread;

  __device__ void Fail() { *static_cast<volatile int*>(&shared_.failed) = 1; }
  __device__ bool HasFailed() const {
    return *static_cast<volatile const int*>(&shared_.failed) != 0;
  }
  __device__ bool AwaitTiles(const Inbox::Tiles& tiles, int peer, std::int64_t value) {
    return value <= 0 || AwaitFlag(&tiles.of[peer], before_ + value, peers_.watch, peer);
  }

  // Thread t of the group waits for rank t; all threads of the group together, which meet at the
  // named barrier `group`.
  __device__ bool GroupAwaits(const Inbox::Tiles& tiles, std::int64_t value, int group) {
    const int peer = static_cast<int>(threadIdx.x) % kGroupThreads;
    if (IsPeer(peers_, peer) && !AwaitTiles(tiles, peer, value)) Fail();
    // One answer for all: who leaves alone would be waited for.
    unsigned failed;
    asm volatile(
        "{ .reg .pred p, q; setp.ne.u32 p, %3, 0; bar.red.or.pred q, %1, %2, p; "
        "selp.u32 %0, 1, 0, q; }"
        : "=r"(failed)
        : "r"(group), "r"(kGroupThreads), "r"(HasFailed() ? 1u : 0u)
        : "memory");
    return failed == 0;
  }

  // Tells the peers, one lane for each, of every tile whose barrier is complete. Pairs with
  // AwaitFlag; what the group wrote came here by the barrier.
  __device__ bool TellTiles(const std::uint64_t* barriers,
                            Inbox::Tiles (Inbox::*tiles)[Inbox::kMaxBlocks]) {
    const int peer = static_cast<int>(threadIdx.x) % 32;
    for (std::int64_t i = 0; i < num_tiles_; ++i) {
      const auto parity = static_cast<unsigned>(i / kTileDepth % 2);
      while (!IsComplete(&barriers[i % kTileDepth], parity)) {
        if (HasFailed()) return false;
      }
      if (IsPeer(peers_, peer)) {
        ReleaseFlag(&(peers_.inbox[peer]->*tiles)[block_].of[peers_.rank], before_ + i + 1);
      }
    }
    return true;
  }

  // Where `source`'s tile i stands in the buffer of `owner`, which has places for the others alone.
  __device__ uint4* TileAt(uint4* buffer, int owner, int source, std::int64_t i) const {
    const std::int64_t ring = block_ * std::int64_t{kTileDepth} + i % kTileDepth;
    const int place = (source - owner + peers_.world_size) % peers_.world_size - 1;
    return buffer + (ring * (peers_.world_size - 1) + place) * all_.max_tile_slots;
  }
  // Calls step(k, slot in the tile, slot in the slice) for the slots of tile i that this thread has
  // of one batch; all k at once are in flight.
  template <typename Step>
  __device__ __forceinline__ void ForBatch(std::int64_t i, std::int64_t batch, Step step) const {
    const std::int64_t tile_begin = (block_ + i * gridDim.x) * all_.tile_slots;
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      const std::int64_t in_tile = batch + k * kGroupThreads + threadIdx.x % kGroupThreads;
      const std::int64_t in_slice = tile_begin + in_tile;
      if (in_tile < all_.tile_slots && in_slice < all_.slice_slots) step(k, in_tile, in_slice);
    }
  }
  // This rank's input to the slice of `owner`.
  __device__ __forceinline__ Slot<T> Own(int owner, std::int64_t in_slice) const {
    return LoadSlot(static_cast<const T*>(all_.in), owner * all_.slice_slots + in_slice, all_.count,
                    true);
  }

  __device__ bool PushTile(std::int64_t i) {
    // The place in the ring is free when its owner is done with the tile before.
    if (!GroupAwaits(inbox_->done[block_], i - kTileDepth + 1, 1)) return false;
#pragma unroll
    for (int owner = 0; owner < kMax; ++owner) {
      if (!IsPeer(peers_, owner)) continue;
      uint4* const to = TileAt(all_.tiles[owner], owner, peers_.rank, i);
      for (std::int64_t batch = 0; batch < all_.tile_slots; batch += kBatch) {
        Slot<T> slots[kPerThread];
        ForBatch(i, batch, [&](int k, std::int64_t, std::int64_t in_slice) {
          slots[k] = Own(owner, in_slice);
        });
        ForBatch(i, batch, [&](int k, std::int64_t in_tile, std::int64_t) {
          to[in_tile] = *reinterpret_cast<const uint4*>(&slots[k]);
        });
      }
    }
    Arrive(&shared_.pushed[i % kTileDepth]);
    return true;
  }

  // What rank r gives to a slot of tile i.
  __device__ __forceinline__ Slot<T> Incoming(int r, std::int64_t i, std::int64_t in_tile,
                                              std::int64_t in_slice) const {
    if (r == peers_.rank) return Own(r, in_slice);
    // Past the first-level cache, which does not see what peers write.
    const uint4 words = __ldcg(TileAt(all_.own_tiles, peers_.rank, r, i) + in_tile);
    return *reinterpret_cast<const Slot<T>*>(&words);
  }

  __device__ bool SumTile(std::int64_t i) {
    if (!GroupAwaits(inbox_->pushed[block_], i + 1, 2)) return false;
    // Not before: the next one's blocks need whole multiprocessors, as the peers' own do.
    if (all_.overlaps) AdmitNext();
    for (std::int64_t batch = 0; batch < all_.tile_slots; batch += kBatch) {
      Slot<T> slots[kPerThread][kMax];
      ForBatch(i, batch, [&](int k, std::int64_t in_tile, std::int64_t in_slice) {
#pragma unroll
        for (int r = 0; r < kMax; ++r) {
          if (r < peers_.world_size) slots[k][r] = Incoming(r, i, in_tile, in_slice);
        }
      });
      VisitOp(all_.op, [&]<ReduceOp kOp>() {
        ForBatch(i, batch, [&](int k, std::int64_t, std::int64_t in_slice) {
          StoreAll(peers_.rank * all_.slice_slots + in_slice,
                   ReduceSlots<kOp>(slots[k], peers_.world_size));
        });
      });
    }
    Arrive(&shared_.summed[i % kTileDepth]);
    return true;
  }

  __device__ void StoreAll(std::int64_t slot, const Slot<T>& result) {
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (r < peers_.world_size) {
        StoreSlot(static_cast<T*>(all_.out[r]), slot, all_.count, true, result);
      }
    }
  }

  const PushArguments<kMax>& all_;
  const Peers& peers_;
  Shared& shared_;
  const int block_;
  Inbox* const inbox_;
  const std::uint64_t before_;
  std::int64_t num_tiles_;
};

template <typename T, int kMax>
__global__ void __launch_bounds__(kThreads<kMax>, 1)
    PushKernel(const __grid_constant__ PushArguments<kMax> all) {
  __shared__ Shared shared;
  if (threadIdx.x < kTileDepth) {
    InitBarrier(&shared.pushed[threadIdx.x], kGroupThreadsFor<kMax>);
    InitBarrier(&shared.summed[threadIdx.x], kGroupThreadsFor<kMax>);
  }
  if (threadIdx.x == 0) shared.failed = 0;
  __syncthreads();
  AwaitWorkBefore();
  Pusher<T, kMax>(all, shared).Run();
}

}  // namespace

cudaError_t LaunchPush(const PushWork& work, cudaStream_t stream) {
  const Peers& peers = work.peers;
  return VisitKernel(work.dtype, peers.world_size, [&]<typename T, int kMax>() {
    const PushLayout layout =
        PushLayout::Of(DivideUp(work.count, Slot<T>::kLanes), peers.world_size, work.num_blocks,
                       work.max_tile_bytes);
    const LaunchShape shape = {work.num_blocks, kThreads<kMax>, work.max_blocks};
    PushArguments<kMax> all = {.peers = peers,
                               .own_tiles = static_cast<uint4*>(work.tiles[peers.rank]),
                               .own_inbox = peers.inbox[peers.rank],
                               .in = work.in,
                               .count = work.count,
                               .op = work.op,
                               .slice_slots = layout.slice_slots,
                               .tile_slots = layout.tile_slots,
                               .max_tile_slots = work.max_tile_bytes / kSlotBytes,
                               .overlaps = shape.overlaps()};
    for (int rank = 0; rank < peers.world_size; ++rank) {
      all.tiles[rank] = static_cast<uint4*>(work.tiles[rank]);
      all.out[rank] = work.out[rank];
    }
    return LaunchOverlapped(PushKernel<T, kMax>, shape, stream, all);
  });
}

void LoadPushKernels(KernelLoader& loader) {
  ForEachKernel([&]<typename T, int kMax>() { loader.Load(PushKernel<T, kMax>); });
}

}  // namespace lockstep::internal::cuda
