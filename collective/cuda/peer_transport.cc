#include <algorithm>

#include "lockstep/collective/cuda/moves.h"
#include "lockstep/collective/cuda/reach.h"
#include "lockstep/collective/cuda/transports.h"

namespace lockstep::internal::cuda {
namespace {

class PeerTransport final : public Transport {
 public:
  PeerTransport(DeviceGroup& group, const AllReduceTuning& tuning)
      : group_(group),
        reach_(group.devices(), /*by_peers=*/true),
        tuning_(tuning),
        ranks_(static_cast<std::size_t>(group.world_size())) {}
  // Kernels of one rank use the buffers of all.
  ~PeerTransport() override { group_.Drain(); }

  absl::Status Allocate() {
    const int world_size = group_.world_size();
    if (world_size == 1) return absl::OkStatus();
    for (int rank = 0; rank < world_size; ++rank) {
      const absl::Status allocated = AllocateFor(group_.device(rank), ranks_[rank]);
      if (allocated.ok()) continue;
      return absl::Status(allocated.code(), absl::StrCat("peer transport: the buffers of rank ",
                                                         rank, ": ", allocated.message()));
    }
    LOCKSTEP_RETURN_IF_ERROR(group_.QueueFirstKernels());
    return ZeroAll();
  }

  TransportMemory memory(int) const override {
    const int world_size = group_.world_size();
    return {.device_bytes = world_size == 1 ? 0
                                            : static_cast<std::int64_t>(sizeof(Inbox)) +
                                                  PeerBufferBytes(tuning_, world_size)};
  }

  absl::string_view name() const override { return "peer"; }
  bool meets_again() const override { return false; }

  absl::Status Prepare(int rank, const CollectiveCall& mine) override {
    return IsMeeting(mine.kind) ? absl::OkStatus() : reach_.Check(rank, mine);
  }

  absl::Status Move(const Round& round) override {
    const int rank = round.rank;
    const DeviceGuard guard(group_.device(rank));
    if (round.world_size() == 1) return QueueMoves(round, group_.stream(round));
    const CollectiveCall& mine = round.mine();
    if (mine.kind == CollectiveKind::kAllReduce) {
      if (mine.in_count() == 0) return absl::OkStatus();
      const LaunchShape lines = LinesShape(round, mine.in_count());
      if (lines.num_blocks > 0) return Lines(round, lines);
      if (AllAligned(round)) return Push(round);
    } else {
      const ExchangePlan plan = PlanExchange(round);
      if (plan.largest == 0) return absl::OkStatus();
      const LaunchShape lines = LinesShape(round, plan.largest);
      if (lines.num_blocks > 0) return Exchange(round, plan, lines);
    }
    // In and out between two signals: everyone is there, then everyone is done.
    LOCKSTEP_RETURN_IF_ERROR(Signal(round));
    LOCKSTEP_RETURN_IF_ERROR(QueueMoves(round, group_.stream(round)));
    return Signal(round);
  }

  absl::Status Reset() override { return group_.world_size() == 1 ? absl::OkStatus() : ZeroAll(); }

 private:
  struct Buffers {
    DeviceMemory inbox;
    DeviceMemory lines;
    DeviceMemory tiles;
  };

  absl::Status AllocateFor(Device device, Buffers& buffers) const {
    const int world_size = group_.world_size();
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.inbox, DeviceMemory::Create(device, sizeof(Inbox)));
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.lines,
                              DeviceMemory::Create(device, Layout().buffer_bytes(world_size)));
    LOCKSTEP_ASSIGN_OR_RETURN(
        buffers.tiles,
        DeviceMemory::Create(device, PushLayout::BufferBytes(world_size, tuning_.push_blocks,
                                                             tuning_.push_tile_bytes)));
    return absl::OkStatus();
  }

  LinesLayout Layout() const {
    return {tuning_.max_lines_bytes, tuning_.lines_blocks, tuning_.lines_threads};
  }
  // Without a block for more elements than can go by lines.
  LaunchShape LinesShape(const Round& round, std::int64_t count) const {
    const std::int64_t bytes = count * static_cast<std::int64_t>(SizeOf(round.mine().dtype));
    if (bytes > tuning_.max_lines_bytes) return {};
    return Layout().ShapeFor(bytes, group_.max_blocks(round));
  }
  const Buffers& BuffersOf(int rank) const { return ranks_[rank]; }

  // Tiles are guarded by the inbox's counters, lines by the number that they carry.
  absl::Status ZeroAll() {
    for (int rank = 0; rank < group_.world_size(); ++rank) {
      const Buffers& mine = BuffersOf(rank);
      LOCKSTEP_RETURN_IF_ERROR(QueueZeros(group_.stream(rank), mine.inbox.get(), sizeof(Inbox)));
      LOCKSTEP_RETURN_IF_ERROR(QueueZeros(group_.stream(rank), mine.lines.get(),
                                          Layout().buffer_bytes(group_.world_size())));
    }
    return group_.AwaitIdle();
  }

  Peers PeersOf(const Round& round) const {
    Peers peers = {.rank = round.rank,
                   .world_size = group_.world_size(),
                   .inbox = {},
                   .watch = group_.watch(round)};
    for (int r = 0; r < peers.world_size; ++r) {
      peers.inbox[r] = static_cast<Inbox*>(BuffersOf(r).inbox.get());
    }
    peers.watch.lookout = &peers.inbox[round.rank]->lookout;
    return peers;
  }

  static bool AllAligned(const Round& round) {
    return std::all_of(round.calls.begin(), round.calls.end(), [](const CollectiveCall* call) {
      return IsAligned(call->in) && IsAligned(call->out);
    });
  }

  absl::Status Signal(const Round& round) {
    return LOCKSTEP_CUDA_STATUS(group_.device(round.rank),
                                LaunchSignal(PeersOf(round), group_.native(round)));
  }

  LineBuffers LinesOf(const Round& round, const LaunchShape& shape) const {
    LineBuffers buffers = {
        .peers = PeersOf(round), .lines = {}, .layout = Layout(), .shape = shape};
    for (int r = 0; r < round.world_size(); ++r) buffers.lines[r] = BuffersOf(r).lines.get();
    return buffers;
  }

  absl::Status Lines(const Round& round, const LaunchShape& shape) {
    const CollectiveCall& mine = round.mine();
    const LinesWork work = {.buffers = LinesOf(round, shape),
                            .in = mine.in,
                            .out = mine.out,
                            .count = mine.in_count(),
                            .dtype = mine.dtype,
                            .op = mine.op};
    return LOCKSTEP_CUDA_STATUS(group_.device(round.rank), LaunchLines(work, group_.native(round)));
  }

  absl::Status Exchange(const Round& round, const ExchangePlan& plan, const LaunchShape& shape) {
    const ExchangeWork work = {.buffers = LinesOf(round, shape),
                               .plan = plan,
                               .dtype = round.mine().dtype,
                               .op = round.mine().op};
    return LOCKSTEP_CUDA_STATUS(group_.device(round.rank),
                                LaunchExchange(work, group_.native(round)));
  }

  absl::Status Push(const Round& round) {
    const CollectiveCall& mine = round.mine();
    const int max_blocks = group_.max_blocks(round);
    const int num_blocks = std::min(tuning_.push_blocks, max_blocks);
    PushWork work = {.peers = PeersOf(round),
                     .tiles = {},
                     .in = mine.in,
                     .out = {},
                     .count = mine.in_count(),
                     .dtype = mine.dtype,
                     .op = mine.op,
                     .num_blocks = num_blocks,
                     .depth = PushLayout::Depth(num_blocks, tuning_.push_blocks),
                     .in_pairs = StandInPairs(round.calls, num_blocks),
                     .max_blocks = max_blocks,
                     .max_tile_bytes = tuning_.push_tile_bytes};
    for (int r = 0; r < round.world_size(); ++r) {
      work.tiles[r] = BuffersOf(r).tiles.get();
      work.out[r] = round.call(r).out;
    }
    return LOCKSTEP_CUDA_STATUS(group_.device(round.rank), LaunchPush(work, group_.native(round)));
  }

  DeviceGroup& group_;
  Reach reach_;
  const AllReduceTuning tuning_;
  std::vector<Buffers> ranks_;
};

}  // namespace

absl::Status CheckTuning(const AllReduceTuning& tuning) {
  const bool right = tuning.max_lines_bytes >= 0 && tuning.max_lines_bytes <= (1 << 30) &&
                     tuning.lines_blocks >= 1 && tuning.push_blocks >= 1 &&
                     tuning.push_blocks <= Inbox::kMaxBlocks && tuning.lines_threads >= 32 &&
                     tuning.lines_threads <= 512 && tuning.push_tile_bytes >= 128 &&
                     tuning.push_tile_bytes <= (1 << 24) && tuning.push_tile_bytes % 128 == 0 &&
                     tuning.lines_threads % 32 == 0 &&
                     tuning.lines_blocks * (tuning.lines_threads / 32) <= Inbox::kMaxLineWarps;
  if (right) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tuning: max_lines_bytes ", tuning.max_lines_bytes, ", lines_blocks ",
                   tuning.lines_blocks, ", push_blocks ", tuning.push_blocks, ", lines_threads ",
                   tuning.lines_threads, "; they must be from 0 to 2^30, at least 1, from 1 to ",
                   Inbox::kMaxBlocks, ", and a multiple of 32 up to 512; push_tile_bytes ",
                   tuning.push_tile_bytes, " must be a multiple of 128 up to 2^24; with ",
                   Inbox::kMaxLineWarps, " warps in all at most"));
}

absl::StatusOr<std::unique_ptr<Transport>> MakePeerTransport(DeviceGroup& group,
                                                             const AllReduceTuning& tuning) {
  auto transport = std::make_unique<PeerTransport>(group, FitInMemory(tuning, group.world_size()));
  LOCKSTEP_RETURN_IF_ERROR(transport->Allocate());
  return transport;
}

}  // namespace lockstep::internal::cuda
