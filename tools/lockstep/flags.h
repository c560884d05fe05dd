// The command line: Abseil's flags, of which each verb takes its own.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_FLAGS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_FLAGS_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/runtime/executor.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/check/check.h"
#include "lockstep/tools/lockstep/train/train.h"

namespace lockstep::tools {

/// Sets the flags that `arguments` give as --name=value, --name value, -n value, --switch or
/// --noswitch, and returns the arguments that are no flags. Only flags in `allowed` exist.
/// kInvalidArgument, in one line: an unknown flag (and the one that was probably meant), a bad
/// value, a missing one.
absl::StatusOr<std::vector<std::string>> ParseFlags(absl::Span<const std::string> arguments,
                                                    absl::Span<const char* const> allowed);

/// A line per flag: name, what it is for, default.
std::string DescribeFlags(absl::Span<const char* const> flags);

/// What the flags say, checked. kInvalidArgument: values that are not possible.
absl::StatusOr<Executor::Options> ExecutorOptionsFromFlags();
absl::StatusOr<TrainOptions> TrainOptionsFromFlags();
absl::StatusOr<BenchOptions> BenchOptionsFromFlags();
absl::StatusOr<CheckOptions> CheckOptionsFromFlags();

extern const std::vector<const char*> kInfoFlags;
extern const std::vector<const char*> kTrainFlags;
extern const std::vector<const char*> kBenchFlags;
extern const std::vector<const char*> kCheckFlags;

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_FLAGS_H_
