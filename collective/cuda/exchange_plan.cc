#include "lockstep/collective/cuda/exchange_plan.h"

namespace lockstep::internal::cuda {

ExchangePlan PlanExchange(const Round& round) {
  ExchangePlan plan;
  if (IsMeeting(round.mine().kind)) return plan;
  const int world_size = round.world_size();
  plan.reduces = round.mine().kind == CollectiveKind::kReduceScatter;
  for (int r = 0; r < world_size; ++r) {
    plan.send[r] = PullOf(round, r, round.rank).from;
    plan.receive[r] = PullOf(round, round.rank, r).to;
    plan.largest = std::max({plan.largest, plan.send[r].count, plan.receive[r].count});
  }
  if (round.mine().kind != CollectiveKind::kAllToAll) return plan;
  // Others may send more to each other.
  for (int giver = 0; giver < world_size; ++giver) {
    for (int taker = 0; taker < world_size; ++taker) {
      const std::int64_t count = round.call(giver).SentTo(taker, world_size).count;
      plan.largest = std::max(plan.largest, count);
    }
  }
  return plan;
}

}  // namespace lockstep::internal::cuda
