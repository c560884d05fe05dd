#include "lockstep/collective/cuda/transports.h"

#include "lockstep/collective/cuda/moves.h"

namespace lockstep::internal::cuda {
namespace {

// No kernel waits for another. A rank's stream waits for the events that the others record before
// they move, and for those that they record after; an event is recorded before the host meeting at
// which everybody may wait for it, so that a wait never finds an old one.
class OrderedTransport final : public DeviceTransport {
 public:
  explicit OrderedTransport(std::unique_ptr<DeviceGroup> group)
      : DeviceTransport(std::move(group), /*by_peers=*/true),
        events_(static_cast<std::size_t>(group_->num_ranks())) {}
  ~OrderedTransport() override {
    for (int rank = 0; rank < group_->num_ranks(); ++rank) {
      const DeviceGuard guard(group_->device(rank));
      for (const cudaEvent_t event : {EventsOf(rank).ready, EventsOf(rank).done}) {
        if (event != nullptr) cudaEventDestroy(event);
      }
    }
  }

  absl::Status MakeEvents() {
    for (int rank = 0; rank < group_->num_ranks(); ++rank) {
      const Device device = group_->device(rank);
      const DeviceGuard guard(device);
      for (cudaEvent_t* event : {&EventsOf(rank).ready, &EventsOf(rank).done}) {
        LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                      cudaEventCreateWithFlags(event, cudaEventDisableTiming));
      }
    }
    return absl::OkStatus();
  }

  absl::string_view name() const override { return "ordered"; }

  absl::Status Prepare(int rank, const CollectiveCall& mine) override {
    if (!IsMeeting(mine.kind)) LOCKSTEP_RETURN_IF_ERROR(reach_.Check(rank, mine));
    const DeviceGuard guard(group_->device(rank));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(group_->device(rank),
                                  cudaEventRecord(EventsOf(rank).ready, group_->native(rank)));
    return absl::OkStatus();
  }

  absl::Status Move(const Round& round) override {
    if (round.mine().capturing) {
      return absl::UnavailableError(
          "the ordered transport cannot be captured in a graph: its streams wait for each other by "
          "way of the host. A test whose ranks share a GPU may ask for TransportKind::kPeer");
    }
    const Device device = group_->device(round.rank);
    const DeviceGuard guard(device);
    LOCKSTEP_RETURN_IF_ERROR(WaitForOthers(round.rank, &Events::ready));
    LOCKSTEP_RETURN_IF_ERROR(QueueMoves(round, group_->stream(round.rank)));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaEventRecord(EventsOf(round.rank).done, group_->native(round.rank)));
    return absl::OkStatus();
  }

  absl::Status Finish(int rank) override {
    const DeviceGuard guard(group_->device(rank));
    return WaitForOthers(rank, &Events::done);
  }

 private:
  struct Events {
    cudaEvent_t ready = nullptr;
    cudaEvent_t done = nullptr;
  };

  Events& EventsOf(int rank) { return events_[static_cast<std::size_t>(rank)]; }

  absl::Status WaitForOthers(int rank, cudaEvent_t Events::*event) {
    for (int other = 0; other < group_->num_ranks(); ++other) {
      if (other == rank) continue;
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          group_->device(rank),
          cudaStreamWaitEvent(group_->native(rank), EventsOf(other).*event, 0));
    }
    return absl::OkStatus();
  }

  std::vector<Events> events_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeOrderedTransport(
    std::unique_ptr<DeviceGroup> group) {
  auto transport = std::make_unique<OrderedTransport>(std::move(group));
  LOCKSTEP_RETURN_IF_ERROR(transport->MakeEvents());
  return transport;
}

}  // namespace lockstep::internal::cuda
