// Who sends what to whom in the collectives that are no all-reduce. Plain numbers and pointers,
// tested on machines without a GPU.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_
#define LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_

#include "lockstep/collective/cuda/plan.h"
#include "lockstep/collective/transport.h"

namespace lockstep::internal::cuda {

/// A part of a tensor: `count` elements in rows of `width`, which begin `pitch` elements apart.
struct Part {
  void* data = nullptr;
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;

  bool contiguous() const { return width == pitch || count == width; }
};

/// One rank's share of a reduce-scatter, all-gather, broadcast or all-to-all. What it sends to
/// itself it moves by itself.
struct ExchangePlan {
  /// For each rank, what it is sent.
  Part send[kMostPeers];
  /// For each rank, where what it sends goes. When `reduces`: all to one place, combined.
  Part receive[kMostPeers];
  bool reduces = false;
  /// Elements that the largest part between any two ranks has: the same on all ranks.
  std::int64_t largest = 0;
};

/// For at most kMostPeers ranks, whose calls agree.
ExchangePlan PlanExchange(const Round& round);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_EXCHANGE_PLAN_H_
