#include <array>
#include <atomic>

#include "lockstep/collective/cuda/moves.h"
#include "lockstep/collective/cuda/reach.h"
#include "lockstep/collective/cuda/transports.h"

namespace lockstep::internal::cuda {
namespace {

// Every rank copies its input, piece by piece on a stream of its own, into pinned memory that all
// devices see, before the host meeting. After it each rank's stream waits for the others' pieces
// and takes what it needs. As in the ordered transport, an event is recorded before the meeting at
// which others may wait for it, and no kernel waits for a kernel.
class StagedTransport final : public Transport {
 public:
  explicit StagedTransport(DeviceGroup& group)
      : group_(group),
        reach_(group.devices(), /*by_peers=*/false),
        ranks_(static_cast<std::size_t>(group.world_size())) {}

  ~StagedTransport() override {
    // One rank's work reads the memory of all.
    group_.Drain();
    SynchronizeCopies().IgnoreError();
  }

  absl::Status Make() {
    for (int rank = 0; rank < group_.world_size(); ++rank) {
      const Device device = group_.device(rank);
      Rank& mine = Of(rank);
      LOCKSTEP_ASSIGN_OR_RETURN(mine.up, OwnedStream::Create(device));
      LOCKSTEP_ASSIGN_OR_RETURN(mine.ready, Event::Create(device));
      LOCKSTEP_ASSIGN_OR_RETURN(mine.done, Event::Create(device));
      for (Event& piece : mine.pieces) {
        LOCKSTEP_ASSIGN_OR_RETURN(piece, Event::Create(device));
      }
    }
    return absl::OkStatus();
  }

  TransportMemory memory(int rank) const override {
    return {.pinned_bytes = ranks_[rank].outbox_bytes};
  }

  absl::string_view name() const override { return "staged"; }

  absl::Status Prepare(int rank, const CollectiveCall& mine) override {
    if (!IsMeeting(mine.kind)) LOCKSTEP_RETURN_IF_ERROR(reach_.Check(rank, mine));
    if (mine.capturing || group_.world_size() == 1 || !IsRead(rank, mine)) return absl::OkStatus();
    const Device device = group_.device(rank);
    const DeviceGuard guard(device);
    Rank& state = Of(rank);
    const auto size = static_cast<std::int64_t>(SizeOf(mine.dtype));
    LOCKSTEP_RETURN_IF_ERROR(Grow(device, state, mine.in_count() * size));
    // Behind the input, and behind all who read the outbox in the round before (see Finish).
    LOCKSTEP_RETURN_IF_ERROR(group_.Record(rank, mine, state.ready));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                  cudaStreamWaitEvent(state.up.get(), state.ready.get(), 0));
    const StagedPieces pieces(mine);
    for (int piece = 0; piece < pieces.count(); ++piece) {
      const std::int64_t begin = pieces[piece].begin * size;
      const std::int64_t end = pieces[piece].end * size;
      if (end > begin) {
        LOCKSTEP_RETURN_IF_CUDA_ERROR(
            device, cudaMemcpyAsync(static_cast<char*>(state.outbox.get()) + begin,
                                    static_cast<const char*>(mine.in) + begin,
                                    static_cast<std::size_t>(end - begin), cudaMemcpyDeviceToHost,
                                    state.up.get()));
      }
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                    cudaEventRecord(state.piece(piece).get(), state.up.get()));
    }
    return absl::OkStatus();
  }

  absl::Status Move(const Round& round) override {
    if (round.mine().capturing) {
      return absl::UnavailableError(
          "the staged transport cannot be captured in a graph: its streams wait for each other by "
          "way of the host");
    }
    if (round.world_size() == 1) return QueueMoves(round, group_.stream(round));
    // The others' inputs as this rank finds them: in their outboxes.
    CollectiveCall calls[kMaxRanks];
    const CollectiveCall* pointers[kMaxRanks];
    for (int rank = 0; rank < round.world_size(); ++rank) {
      calls[rank] = round.call(rank);
      if (rank != round.rank) calls[rank].in = Of(rank).outbox.get();
      pointers[rank] = &calls[rank];
    }
    const Round staged{.rank = round.rank,
                       .number = round.number,
                       .calls = {pointers, round.calls.size()},
                       .failed = round.failed};
    const StagedPieces pieces(round.mine());
    for (int piece = 0; piece < pieces.count(); ++piece) {
      for (int rank = 0; rank < round.world_size(); ++rank) {
        // Its own too: what comes behind may spoil its input, or be the output in its place.
        if (!IsRead(rank, round.mine())) continue;
        LOCKSTEP_RETURN_IF_ERROR(group_.Await(round, Of(rank).piece(piece)));
      }
      LOCKSTEP_RETURN_IF_ERROR(QueuePull(staged, group_.stream(round), pieces[piece]));
    }
    return group_.Record(round.rank, round.mine(), Of(round.rank).done);
  }

  // Whoever writes its outbox next does so behind all who have read it.
  absl::Status Finish(const Round& round) override {
    for (int other = 0; other < round.world_size(); ++other) {
      if (other != round.rank) LOCKSTEP_RETURN_IF_ERROR(group_.Await(round, Of(other).done));
    }
    return absl::OkStatus();
  }

  absl::Status Reset() override { return SynchronizeCopies(); }

 private:
  struct Rank {
    // On which the input goes up, and the memory that it goes to.
    OwnedStream up;
    PinnedMemory outbox;
    std::atomic<std::int64_t> outbox_bytes{0};  // asked for from any thread
    Event ready;
    Event done;
    std::array<Event, StagedPieces::kMax> pieces;

    const Event& piece(int index) const { return pieces[index]; }
  };

  Rank& Of(int rank) { return ranks_[rank]; }

  // Returns when no input is on its way up.
  absl::Status SynchronizeCopies() const {
    absl::Status status;
    for (const Rank& rank : ranks_) {
      const Device device = rank.up.device();
      if (rank.up.get() == nullptr || !HasContext(device)) continue;
      const DeviceGuard guard(device);
      status.Update(LOCKSTEP_CUDA_STATUS(device, cudaStreamSynchronize(rank.up.get())));
    }
    return status;
  }

  // Only the root's input of a broadcast is.
  static bool IsRead(int rank, const CollectiveCall& call) {
    return !IsMeeting(call.kind) && (call.kind != CollectiveKind::kBroadcast || call.root == rank);
  }

  // Nobody reads the old outbox any more when this rank's stream is done.
  static absl::Status Grow(Device device, Rank& rank, std::int64_t bytes) {
    if (bytes <= rank.outbox_bytes) return absl::OkStatus();
    if (rank.outbox_bytes > 0) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaDeviceSynchronize());
      rank.outbox = {};
      rank.outbox_bytes = 0;
    }
    LOCKSTEP_ASSIGN_OR_RETURN(rank.outbox, PinnedMemory::Create(device, bytes));
    rank.outbox_bytes = bytes;
    return absl::OkStatus();
  }

  DeviceGroup& group_;
  Reach reach_;
  std::vector<Rank> ranks_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeStagedTransport(DeviceGroup& group) {
  auto transport = std::make_unique<StagedTransport>(group);
  LOCKSTEP_RETURN_IF_ERROR(transport->Make());
  return transport;
}

}  // namespace lockstep::internal::cuda
