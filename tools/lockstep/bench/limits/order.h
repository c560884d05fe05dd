// What the fixed order of a sum costs.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_ORDER_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_ORDER_H_

#include <cstdint>

#include "lockstep/tools/lockstep/bench/bench.h"

namespace lockstep::tools {

/// Sums of eight bfloat16 arrays of 16 MiB on one GPU, in alternating rounds.
struct SumOrderTimes {
  /// Read and written by one sum.
  std::int64_t bytes = 0;
  Times tree;           // as lockstep sums
  Times left_to_right;  // as a loop does
  /// Elements of both whose bits differ from those of the same sum on the host.
  std::int64_t wrong = 0;
};

absl::StatusOr<SumOrderTimes> MeasureSumOrders(Device device);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_ORDER_H_
