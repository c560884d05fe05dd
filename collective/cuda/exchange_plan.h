// Who sends what to whom in the collectives that are no all-reduce. Plain numbers and pointers,
// tested on machines without a GPU.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_
#define LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_

#include "lockstep/collective/cuda/plan.h"
#include "lockstep/collective/shares.h"

namespace lockstep::internal::cuda {

/// One rank's share of a reduce-scatter, all-gather, broadcast or all-to-all. What it sends to
/// itself it moves by itself.
struct ExchangePlan {
  /// For each rank, what it is sent.
  Part send[kMaxPeers];
  /// For each rank, where what it sends goes. When `reduces`: all to one place, combined.
  Part receive[kMaxPeers];
  bool reduces = false;
  /// Elements that the largest part between any two ranks has: the same on all ranks.
  std::int64_t largest = 0;
};

/// For at most kMaxPeers ranks, whose calls agree.
ExchangePlan PlanExchange(const Round& round);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_
