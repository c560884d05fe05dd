// `lockstep check`: whether groups survive what goes wrong, and how fast.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CHECK_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "lockstep/tools/lockstep/bench/bench.h"

namespace lockstep::tools {

struct CheckOptions {
  /// One campaign each.
  std::vector<int> world_sizes = {2, 3, 4, 8};
  bool campaign = false;
  std::uint64_t seed = 1;
  /// Of all campaigns together.
  absl::Duration length = absl::Minutes(1);
  bool json = false;
  Spoil spoil = nullptr;
};

/// For ranks on the CPU: measures how fast aborts reach those who wait, or runs the campaign, and
/// writes a table or JSON to stdout. kDataLoss: something was not survived.
absl::Status Check(const CheckOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CHECK_H_
