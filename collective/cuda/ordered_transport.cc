#include "lockstep/collective/cuda/transports.h"

#include "lockstep/collective/cuda/moves.h"

namespace lockstep::internal::cuda {
namespace {

// No kernel waits for another. A rank's stream waits for the events that the others record before
// they move, and for those that they record after; an event is recorded before the host meeting at
// which everybody may wait for it, so that a wait never finds an old one.
class OrderedTransport final : public DeviceTransport {
 public:
  // A rank's own.
  struct Events {
    Event ready;
    Event done;
  };

  OrderedTransport(std::unique_ptr<DeviceGroup> group, std::vector<Events> events)
      : DeviceTransport(std::move(group), /*by_peers=*/true), events_(std::move(events)) {}

  absl::string_view name() const override { return "ordered"; }

  absl::Status Prepare(int rank, const CollectiveCall& mine) override {
    if (!IsMeeting(mine.kind)) LOCKSTEP_RETURN_IF_ERROR(reach_.Check(rank, mine));
    const DeviceGuard guard(group_->device(rank));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        group_->device(rank), cudaEventRecord(EventsOf(rank).ready.get(), group_->native(rank)));
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
        device, cudaEventRecord(EventsOf(round.rank).done.get(), group_->native(round.rank)));
    return absl::OkStatus();
  }

  absl::Status Finish(int rank) override {
    const DeviceGuard guard(group_->device(rank));
    return WaitForOthers(rank, &Events::done);
  }

 private:
  const Events& EventsOf(int rank) const { return events_[static_cast<std::size_t>(rank)]; }

  absl::Status WaitForOthers(int rank, Event Events::*event) {
    for (int other = 0; other < group_->num_ranks(); ++other) {
      if (other == rank) continue;
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          group_->device(rank),
          cudaStreamWaitEvent(group_->native(rank), (EventsOf(other).*event).get(), 0));
    }
    return absl::OkStatus();
  }

  const std::vector<Events> events_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeOrderedTransport(
    std::unique_ptr<DeviceGroup> group) {
  std::vector<OrderedTransport::Events> events;
  for (const Device device : group->devices()) {
    LOCKSTEP_ASSIGN_OR_RETURN(Event ready, Event::Create(device));
    LOCKSTEP_ASSIGN_OR_RETURN(Event done, Event::Create(device));
    events.push_back({std::move(ready), std::move(done)});
  }
  return std::make_unique<OrderedTransport>(std::move(group), std::move(events));
}

}  // namespace lockstep::internal::cuda
