#include "lockstep/collective/cuda/exchange_plan.h"

namespace lockstep::internal::cuda {
namespace {

class Planner {
 public:
  explicit Planner(const Round& round)
      : round_(round), mine_(round.mine()), size_(static_cast<std::int64_t>(SizeOf(mine_.dtype))) {}

  ExchangePlan ReduceScatter() {
    plan_.reduces = true;
    std::int64_t offset = 0;
    for (int r = 0; r < num_ranks(); ++r) {
      const std::int64_t width = Call(r).out_width;
      Send(r) = Rows(mine_.in, offset, width, mine_.in_width);
      Receive(r) = Rows(mine_.out, 0, mine_.out_width, mine_.out_width);
      Note(mine_.outer * width);
      offset += width;
    }
    return plan_;
  }

  ExchangePlan AllGather() {
    std::int64_t offset = 0;
    for (int r = 0; r < num_ranks(); ++r) {
      const std::int64_t width = Call(r).in_width;
      Send(r) = Rows(mine_.in, 0, mine_.in_width, mine_.in_width);
      Receive(r) = Rows(mine_.out, offset, width, mine_.out_width);
      Note(mine_.outer * width);
      offset += width;
    }
    return plan_;
  }

  ExchangePlan Broadcast() {
    const std::int64_t count = mine_.out_width;
    if (round_.rank == mine_.root) {
      for (int r = 0; r < num_ranks(); ++r) Send(r) = Flat(mine_.in, 0, count);
    }
    Receive(mine_.root) = Flat(mine_.out, 0, count);
    Note(count);
    return plan_;
  }

  ExchangePlan AllToAll() {
    for (int r = 0; r < num_ranks(); ++r) {
      for (int s = 0; s < num_ranks(); ++s) {
        const FlatPart sent = PartOf(Call(r).send_counts(), Call(r).in_width, s, num_ranks());
        Note(sent.count);
        if (r == round_.rank) Send(s) = Flat(mine_.in, sent.offset, sent.count);
      }
      const FlatPart received = PartOf(mine_.receive_counts(), mine_.out_width, r, num_ranks());
      Receive(r) = Flat(mine_.out, received.offset, received.count);
    }
    return plan_;
  }

 private:
  int num_ranks() const { return round_.world_size(); }
  const CollectiveCall& Call(int rank) const {
    return *round_.calls[static_cast<std::size_t>(rank)];
  }
  Part& Send(int rank) { return plan_.send[rank]; }
  Part& Receive(int rank) { return plan_.receive[rank]; }
  void Note(std::int64_t count) { plan_.largest = std::max(plan_.largest, count); }

  // Columns [offset, offset + width) of a tensor whose rows have `pitch` elements.
  Part Rows(const void* base, std::int64_t offset, std::int64_t width, std::int64_t pitch) const {
    return {At(base, offset), mine_.outer * width, width, pitch};
  }
  Part Flat(const void* base, std::int64_t offset, std::int64_t count) const {
    return {At(base, offset), count, count, count};
  }
  void* At(const void* base, std::int64_t element) const {
    return const_cast<char*>(static_cast<const char*>(base)) + element * size_;
  }

  const Round& round_;
  const CollectiveCall& mine_;
  const std::int64_t size_;
  ExchangePlan plan_;
};

}  // namespace

ExchangePlan PlanExchange(const Round& round) {
  Planner planner(round);
  switch (round.mine().kind) {
    case CollectiveKind::kReduceScatter:
      return planner.ReduceScatter();
    case CollectiveKind::kAllGather:
      return planner.AllGather();
    case CollectiveKind::kBroadcast:
      return planner.Broadcast();
    case CollectiveKind::kAllToAll:
      return planner.AllToAll();
    default:
      return {};
  }
}

}  // namespace lockstep::internal::cuda
