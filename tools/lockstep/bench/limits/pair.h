// What two GPUs can do to each other's memory.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_

#include <cstdint>
#include <memory>

#include "lockstep/tools/lockstep/bench/limits/lanes.h"

namespace lockstep::tools {

/// Two GPUs, and memory on both, filled with a pattern: each sends from `in` to the other's `out`.
struct LimitPair {
  Device devices[2];
  std::shared_ptr<void> in[2];
  std::shared_ptr<void> out[2];
  std::int64_t bytes;  // of each
};

/// kResourceExhausted: no memory.
absl::StatusOr<LimitPair> MakePair(Device a, Device b, std::int64_t bytes);

/// Both directions at once by kernels, for GPUs that reach each other: each reads its peer's
/// memory, or writes to it. With the fastest number of blocks, since anything slower is not the
/// limit.
absl::StatusOr<Times> KernelCopies(const LimitPair& pair, bool writes);

/// Both directions at once by the copy engines.
absl::StatusOr<Times> CopyEngines(const LimitPair& pair);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_
