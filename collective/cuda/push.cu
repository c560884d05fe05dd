#include <algorithm>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/overlapped_launch.cuh"
#include "lockstep/collective/cuda/shared_memory.cuh"
#include "lockstep/collective/cuda/signals.cuh"
#include "lockstep/collective/cuda/tree.cuh"

namespace lockstep::internal::cuda {
namespace {

constexpr int kMaxDepth = PushLayout::kMaxDepth;
// A block has threads that push, threads that sum, and a warp each for telling the peers what has
// been pushed, telling them what has been summed, and looking at what they tell. Telling waits
// until all writes before have arrived; in a warp of its own, nobody waits with it.
constexpr int kPushThreads = 256;
template <int kMax>
constexpr int kSumThreads = kMax <= 4 ? 512 : 256;
template <int kMax>
constexpr int kThreads = kPushThreads + kSumThreads<kMax> + 3 * 32;
// Slots that a thread handles at once, and how often it has as many under way, for each rank: they
// wait in shared memory, of which all devices give a block 99 KiB.
template <int kMax>
constexpr int kSlots = kMax <= 2 ? 2 : 1;
constexpr int kStages = 2;

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
  int depth;
  bool overlaps;
};

// What the peers tell, tile by tile.
enum Told : int { kPushed, kDone };

// What the threads of a block share: for each place of the ring, how often a tile has been pushed,
// and how often one has been summed, by all threads of the group (PTX's mbarrier). A barrier cannot
// be overrun: a place is used again when its tile has been told to the peers and they are done.
template <int kMax>
struct Shared {
  uint4 own[kStages][kSlots<kMax>][kPushThreads];
  uint4 all[kStages][kSlots<kMax>][kMax][kSumThreads<kMax>];
  std::uint64_t pushed[kMaxDepth];
  std::uint64_t summed[kMaxDepth];
  // By all peers, by what they have told.
  std::int64_t told[2];
  int failed;
};
static_assert(sizeof(Shared<2>) <= 99 << 10 && sizeof(Shared<4>) <= 99 << 10 &&
              sizeof(Shared<8>) <= 99 << 10);

// One block's part of a round (see PushLayout).
template <typename T, int kMax>
class Pusher {
 public:
  __device__ Pusher(const PushArguments<kMax>& all, Shared<kMax>& shared)
      : all_(all),
        peers_(all.peers),
        shared_(shared),
        block_(static_cast<int>(blockIdx.x)),
        inbox_(all.own_inbox),
        before_(inbox_->tiles_before[block_]) {
    const std::int64_t tiles = (all.slice_slots + all.tile_slots - 1) / all.tile_slots;
    num_tiles_ =
        tiles <= block_ ? 0 : static_cast<int>((tiles - block_ + gridDim.x - 1) / gridDim.x);
  }

  __device__ void Run() {
    constexpr int kWorkers = kPushThreads + kSumThreads<kMax>;
    const int thread = static_cast<int>(threadIdx.x);
    bool lasts = true;
    if (thread < kPushThreads) {
      lasts = PushTiles(thread);
    } else if (thread < kWorkers) {
      lasts = SumTiles(thread - kPushThreads);
    } else if (thread < kWorkers + 32) {
      lasts = TellTiles(shared_.pushed, &Inbox::pushed);
    } else if (thread < kWorkers + 64) {
      lasts = TellTiles(shared_.summed, &Inbox::done);
    } else {
      // Until everyone's results are in this rank's output, too.
      lasts = WatchPeers();
    }
    if (!lasts) *static_cast<volatile int*>(&shared_.failed) = 1;
    __syncthreads();
    if (thread == 0 && shared_.failed == 0)
      inbox_->tiles_before[block_] = before_ + static_cast<std::uint64_t>(num_tiles_);
  }

 private:
  __device__ bool HasFailed() const {
    return *static_cast<volatile const int*>(&shared_.failed) != 0;
  }
  // Whether all peers have told of `count` tiles. All lanes of a warp get one answer.
  __device__ bool Have(Told what, std::int64_t count) const {
    return __all_sync(kAllLanes, LoadCount(&shared_.told[what]) >= count) != 0;
  }
  __device__ bool Await(Told what, std::int64_t count) const {
    while (!Have(what, count)) {
      if (__any_sync(kAllLanes, HasFailed()) != 0) return false;
    }
    return true;
  }

  // Looks at what the peers tell, a lane for each of them and what they tell, and passes on how far
  // all of them are.
  __device__ bool WatchPeers() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int peer = lane % kMaxPeers;
    const auto what = static_cast<Told>(lane / kMaxPeers);
    const bool looks = what <= kDone && IsPeer(peers_, peer);
    const Inbox::Tiles& tiles = what == kPushed ? inbox_->pushed[block_] : inbox_->done[block_];
    // Of those who tell the same.
    std::int64_t least = 0;
    while (__any_sync(kAllLanes, least < num_tiles_) != 0) {
      Patience patience(peers_.watch);
      const std::int64_t before = least;
      for (;;) {
        const std::int64_t told =
            looks ? static_cast<std::int64_t>(AcquireFlag(&tiles.of[peer]) - before_) : num_tiles_;
        least = told;
        for (int apart = 1; apart < kMaxPeers; apart *= 2) {
          least = min(least, __shfl_xor_sync(kAllLanes, least, apart));
        }
        __syncwarp();  // what the other lanes have acquired comes before what this one releases
        if (least > before && peer == 0 && what <= kDone) StoreCount(&shared_.told[what], least);
        // Not before: the next one's blocks need whole multiprocessors, as the peers' own do.
        if (all_.overlaps && __shfl_sync(kAllLanes, least, 0) > 0) AdmitNext();
        if (__any_sync(kAllLanes, least > before) != 0) break;
        // Who has pushed less than the others keeps them from being done, too.
        const bool all_pushed = __shfl_sync(kAllLanes, least, 0) >= num_tiles_;
        const bool is_late = told == least && told < num_tiles_ && (what == kPushed || all_pushed);
        if (__any_sync(kAllLanes, is_late && !patience.Lasts(peer)) != 0) return false;
      }
    }
    return true;
  }

  // Tells the peers, one lane for each, of every tile whose barrier is complete. Pairs with
  // AcquireFlag; what the group wrote came here by the barrier.
  __device__ bool TellTiles(const std::uint64_t* barriers,
                            Inbox::Tiles (Inbox::*tiles)[Inbox::kMaxBlocks]) {
    const int peer = static_cast<int>(threadIdx.x) % 32;
    if (!IsPeer(peers_, peer)) return true;
    const auto is_complete = [&](int i) {
      return IsComplete(&barriers[PlaceOf(i)], static_cast<unsigned>(i / all_.depth) % 2);
    };
    for (int i = 0; i < num_tiles_;) {
      while (!is_complete(i)) {
        if (HasFailed()) return false;
        __nanosleep(20);
      }
      // Of all at once that were complete when the last had been told.
      do ++i;
      while (i < num_tiles_ && is_complete(i));
      ReleaseFlag(&(peers_.inbox[peer]->*tiles)[block_].of[peers_.rank],
                  before_ + static_cast<std::uint64_t>(i));
    }
    return true;
  }

  // Of tile i in the ring.
  __device__ int PlaceOf(int i) const { return i & (all_.depth - 1); }
  // Where `source`'s tile i stands in the buffer of `owner`, which has places for the others alone.
  __device__ uint4* TileAt(uint4* buffer, int owner, int source, int i) const {
    const std::int64_t ring = std::int64_t{block_} * all_.depth + PlaceOf(i);
    const int place = source > owner ? source - 1 : source;
    return buffer + (ring * (peers_.world_size - 1) + place) * all_.max_tile_slots;
  }

  // A tile of the slice of `owner` in the whole tensor: its first slot, how many slots are whole,
  // and how many bytes there are of the one behind them.
  struct Extent {
    std::int64_t begin;
    int num_whole;
    int rest;
    __device__ int bytes(int slot) const {
      return slot < num_whole ? kSlotBytes : (slot == num_whole ? rest : 0);
    }
  };
  __device__ Extent ExtentOf(int owner, int i) const {
    const std::int64_t in_slice = (block_ + std::int64_t{i} * gridDim.x) * all_.tile_slots;
    const std::int64_t begin = owner * all_.slice_slots + in_slice;
    const std::int64_t end = min(all_.tile_slots, all_.slice_slots - in_slice) * kSlotBytes;
    const std::int64_t there =
        all_.count * static_cast<std::int64_t>(sizeof(T)) - begin * kSlotBytes;
    const auto bytes = static_cast<int>(max(std::int64_t{0}, min(end, there)));
    return {begin, bytes / kSlotBytes, bytes % kSlotBytes};
  }
  // Of this rank's input.
  __device__ const uint4* Own(const Extent& extent) const {
    return static_cast<const uint4*>(all_.in) + extent.begin;
  }

  // What the threads of one group do with all tiles: batch by batch, each thread kSlots slots of
  // one, and in a tile for one owner behind the other, if there are `num_turns`. In between,
  // kStages batches are under way. load(view, slot, stage, k) starts to load a slot, and use(...)
  // is given what was loaded; view is what get_view(tile, turn) gave. A tile is begun when the
  // peers have told of `ahead` more, and its end is marked in `barriers`.
  template <int kGroupThreads, typename GetView, typename Load, typename Use>
  __device__ __forceinline__ bool ForTiles(int thread, int num_turns, Told what, int ahead,
                                           std::uint64_t* barriers, GetView get_view, Load load,
                                           Use use) {
    struct Place {
      int tile = 0;
      int turn = 0;
      int batch = 0;
      int stage = 0;
      decltype(get_view(0, 0)) view;
    };
    constexpr int kBatch = kGroupThreads * kSlots<kMax>;
    const int num_batches = static_cast<int>((all_.tile_slots + kBatch - 1) / kBatch);
    // Whether it stays in the tile.
    const auto advance = [&](Place& place) {
      place.stage = place.stage + 1 == kStages ? 0 : place.stage + 1;
      if (++place.batch < num_batches) return true;
      place.batch = 0;
      const bool stays = ++place.turn < num_turns;
      if (!stays) {
        place.turn = 0;
        ++place.tile;
      }
      place.view = get_view(place.tile, place.turn);
      return stays;
    };
    Place next = {.view = get_view(0, 0)};
    Place now = next;
    int under_way = 0;
    bool may_load = false;
    while (now.tile < num_tiles_) {
      while (under_way < kStages && next.tile < num_tiles_) {
        if (!may_load && !Have(what, next.tile + ahead)) {
          if (under_way > 0) break;
          if (!Await(what, next.tile + ahead)) return false;
        }
#pragma unroll
        for (int k = 0; k < kSlots<kMax>; ++k) {
          load(next.view, next.batch * kBatch + k * kGroupThreads + thread, next.stage, k);
        }
        EndStep();
        may_load = advance(next);
        ++under_way;
      }
      if (under_way == kStages) {
        AwaitLoads<kStages - 1>();
      } else {
        AwaitLoads<0>();
      }
#pragma unroll
      for (int k = 0; k < kSlots<kMax>; ++k) {
        use(now.view, now.batch * kBatch + k * kGroupThreads + thread, now.stage, k);
      }
      --under_way;
      const int tile = now.tile;
      if (!advance(now)) Arrive(&barriers[PlaceOf(tile)]);
    }
    return true;
  }

  __device__ bool PushTiles(int thread) {
    struct View {
      Extent extent;
      const uint4* from;
      uint4* to;
    };
    // A place in the ring is free when its owner is done with the tile before.
    return ForTiles<kPushThreads>(
        thread, world_size() - 1, kDone, 1 - all_.depth, shared_.pushed,
        [&](int tile, int turn) {
          const int owner = turn < peers_.rank ? turn : turn + 1;
          const Extent extent = ExtentOf(owner, tile);
          return View{extent, Own(extent), TileAt(all_.tiles[owner], owner, peers_.rank, tile)};
        },
        [&](const View& view, int slot, int stage, int k) {
          StartLoad(&shared_.own[stage][k][thread], view.from + slot, view.extent.bytes(slot));
        },
        [&](const View& view, int slot, int stage, int k) {
          if (view.extent.bytes(slot) > 0) view.to[slot] = shared_.own[stage][k][thread];
        });
  }

  __device__ bool SumTiles(int thread) {
    struct View {
      Extent extent;
      const uint4* from[kMax];
    };
    return ForTiles<kSumThreads<kMax>>(
        thread, /*num_turns=*/1, kPushed, /*ahead=*/1, shared_.summed,
        [&](int tile, int) {
          View view = {ExtentOf(peers_.rank, tile), {}};
          ForRanks([&](int r) {
            view.from[r] =
                r == peers_.rank ? Own(view.extent) : TileAt(all_.own_tiles, peers_.rank, r, tile);
          });
          return view;
        },
        [&](const View& view, int slot, int stage, int k) {
          const int bytes = view.extent.bytes(slot);
          ForRanks([&](int r) {
            StartLoad(&shared_.all[stage][k][r][thread], view.from[r] + slot, bytes);
          });
        },
        [&](const View& view, int slot, int stage, int k) {
          const int bytes = view.extent.bytes(slot);
          if (bytes == 0) return;
          Slot<T> slots[kMax];
          ForRanks([&](int r) {
            slots[r] = *reinterpret_cast<const Slot<T>*>(&shared_.all[stage][k][r][thread]);
          });
          Slot<T> sum;
          VisitOp(all_.op, [&]<ReduceOp kOp>() { sum = ReduceSlots<kOp>(slots, world_size()); });
          const std::int64_t at = view.extent.begin + slot;
          if (bytes == kSlotBytes) {
            ForRanks([&](int r) { static_cast<Slot<T>*>(all_.out[r])[at] = sum; });
          } else {
            ForRanks(
                [&](int r) { StoreSlot(static_cast<T*>(all_.out[r]), at, all_.count, true, sum); });
          }
        });
  }

  template <typename Visitor>
  __device__ __forceinline__ void ForRanks(Visitor visitor) const {
#pragma unroll
    for (int r = 0; r < kMax; ++r) {
      if (r < world_size()) visitor(r);
    }
  }
  // Known to the compiler where it can be.
  __device__ int world_size() const { return kMax == 2 ? 2 : peers_.world_size; }

  const PushArguments<kMax>& all_;
  const Peers& peers_;
  Shared<kMax>& shared_;
  const int block_;
  Inbox* const inbox_;
  const std::uint64_t before_;
  int num_tiles_;
};

template <typename T, int kMax>
__global__ void __launch_bounds__(kThreads<kMax>, 1)
    PushKernel(const __grid_constant__ PushArguments<kMax> all) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<Shared<kMax>*>(memory);
  if (threadIdx.x < kMaxDepth) {
    InitBarrier(&shared.pushed[threadIdx.x], kPushThreads);
    InitBarrier(&shared.summed[threadIdx.x], kSumThreads<kMax>);
  }
  if (threadIdx.x == 0) {
    shared.told[kPushed] = 0;
    shared.told[kDone] = 0;
    shared.failed = 0;
  }
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
    const LaunchShape shape = {.num_blocks = work.num_blocks,
                               .num_threads = kThreads<kMax>,
                               .max_blocks = work.max_blocks,
                               .shared_bytes = sizeof(Shared<kMax>),
                               .in_pairs = work.in_pairs};
    PushArguments<kMax> all = {.peers = peers,
                               .own_tiles = static_cast<uint4*>(work.tiles[peers.rank]),
                               .own_inbox = peers.inbox[peers.rank],
                               .in = work.in,
                               .count = work.count,
                               .op = work.op,
                               .slice_slots = layout.slice_slots,
                               .tile_slots = layout.tile_slots,
                               .max_tile_slots = work.max_tile_bytes / kSlotBytes,
                               .depth = work.depth,
                               .overlaps = shape.overlaps()};
    for (int rank = 0; rank < peers.world_size; ++rank) {
      all.tiles[rank] = static_cast<uint4*>(work.tiles[rank]);
      all.out[rank] = work.out[rank];
    }
    return LaunchOverlapped(PushKernel<T, kMax>, shape, stream, all);
  });
}

void LoadPushKernels(KernelLoader& loader) {
  ForEachKernel(
      [&]<typename T, int kMax>() { loader.Load(PushKernel<T, kMax>, sizeof(Shared<kMax>)); });
}

}  // namespace lockstep::internal::cuda
