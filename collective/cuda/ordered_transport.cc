#include "lockstep/collective/cuda/moves.h"
#include "lockstep/collective/cuda/reach.h"
#include "lockstep/collective/cuda/transports.h"

namespace lockstep::internal::cuda {
namespace {

// No kernel waits for another. A rank's stream waits for the events that the others record before
// they move, and for those that they record after; an event is recorded before the host meeting at
// which everybody may wait for it, so that a wait never finds an old one.
class OrderedTransport final : public Transport {
 public:
  // A rank's own.
  struct Events {
    Event ready;
    Event done;
  };

  OrderedTransport(DeviceGroup& group, std::vector<Events> events)
      : group_(group), reach_(group.devices(), /*by_peers=*/true), events_(std::move(events)) {}

  absl::string_view name() const override { return "ordered"; }

  absl::Status Prepare(int rank, const CollectiveCall& mine) override {
    if (!IsMeeting(mine.kind)) LOCKSTEP_RETURN_IF_ERROR(reach_.Check(rank, mine));
    return group_.Record(rank, mine, Of(rank).ready);
  }

  absl::Status Move(const Round& round) override {
    if (round.mine().capturing) {
      return absl::UnavailableError(
          "the ordered transport cannot be captured in a graph: its streams wait for each other by "
          "way of the host. transport_reason() says why it serves; a test whose ranks share a GPU "
          "may ask for TransportKind::kPeer");
    }
    LOCKSTEP_RETURN_IF_ERROR(WaitForOthers(round, &Events::ready));
    LOCKSTEP_RETURN_IF_ERROR(QueueMoves(round, group_.stream(round)));
    return group_.Record(round.rank, round.mine(), Of(round.rank).done);
  }

  absl::Status Finish(const Round& round) override { return WaitForOthers(round, &Events::done); }

 private:
  const Events& Of(int rank) const { return events_[rank]; }

  absl::Status WaitForOthers(const Round& round, Event Events::*event) const {
    for (int other = 0; other < round.world_size(); ++other) {
      if (other == round.rank) continue;
      LOCKSTEP_RETURN_IF_ERROR(group_.Await(round, Of(other).*event));
    }
    return absl::OkStatus();
  }

  const DeviceGroup& group_;
  Reach reach_;
  const std::vector<Events> events_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeOrderedTransport(DeviceGroup& group) {
  std::vector<OrderedTransport::Events> events;
  for (const Device device : group.devices()) {
    LOCKSTEP_ASSIGN_OR_RETURN(Event ready, Event::Create(device));
    LOCKSTEP_ASSIGN_OR_RETURN(Event done, Event::Create(device));
    events.push_back({std::move(ready), std::move(done)});
  }
  return std::make_unique<OrderedTransport>(group, std::move(events));
}

}  // namespace lockstep::internal::cuda
