#include "lockstep/tools/lockstep/bench.h"

namespace lockstep::tools {

absl::Status BenchLimits(const BenchOptions&) {
  return absl::UnavailableError("limits: they are those of GPUs, and this build has no CUDA");
}

}  // namespace lockstep::tools
