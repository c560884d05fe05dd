// How long an abort takes to reach those who wait.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_ABORT_LATENCY_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_ABORT_LATENCY_H_

#include <functional>
#include <vector>

#include "lockstep/collective/collective_barrier.h"

namespace lockstep::tools {

/// Aborts the group with the status that MeasureAbortLatency expects.
void AbortOnce(CollectiveBarrier& barrier);

/// Microseconds from the call of Abort() to the return of each rank that waits, in rising order.
/// One rank of `world_size` on the CPU aborts `aborts` times, at moments between the others'
/// arrival and their sleep; all of them share `cores` cores, or all cores if 0. kInternal: a
/// waiting rank got something other than the abort. Tests pass another `abort`.
absl::StatusOr<std::vector<double>> MeasureAbortLatency(
    int world_size, int cores, int aborts,
    const std::function<void(CollectiveBarrier&)>& abort = AbortOnce);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_ABORT_LATENCY_H_
