// What two GPUs can do to each other's memory.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "lockstep/tools/lockstep/bench/limits/lanes.h"

namespace lockstep::tools {

/// Two GPUs, and memory on both, filled with a pattern: each sends from `in` to the other's `out`.
struct LimitPair {
  Device devices[2];
  std::shared_ptr<void> in[2];
  std::shared_ptr<void> out[2];
  std::int64_t bytes;  // of each

  std::vector<Device> both() const { return {devices[0], devices[1]}; }
};

/// kResourceExhausted: no memory.
absl::StatusOr<LimitPair> MakePair(Device a, Device b, std::int64_t bytes);

/// Lets kernels of either GPU use the other's memory. kUnavailable: they cannot.
absl::Status LetReach(Device a, Device b);

/// Both directions at once by kernels, for GPUs that reach each other: each reads its peer's
/// memory, or writes to it. With the fastest number of blocks, since anything slower is not the
/// limit.
absl::StatusOr<Times> KernelCopies(const LimitPair& pair, bool writes);

/// Both directions at once by the copy engines.
absl::StatusOr<Times> CopyEngines(const LimitPair& pair);

/// By a copy engine from devices[from] to the other, and nothing the other way.
absl::StatusOr<Times> OneWayCopy(const LimitPair& pair, int from, const LimitRounds& how);

/// Nanoseconds of a load by devices[from] from the other's memory, which finds its line in that
/// GPU's second-level cache. For GPUs that reach each other, and 64 MiB at least. Overwrites the
/// other's `in`. kDataLoss: the loads did not find what is there.
absl::StatusOr<double> LoadLatency(const LimitPair& pair, int from, const LimitRounds& how);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PAIR_H_
