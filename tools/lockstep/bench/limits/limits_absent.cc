// A build without CUDA.
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

namespace lockstep::tools {

absl::Status BenchLimits(const BenchOptions&) {
  return absl::UnavailableError("limits: they are those of GPUs, and this build has no CUDA");
}

absl::StatusOr<std::vector<PeerLink>> MeasureLinksOf(Device, Device) {
  return absl::UnavailableError("links: they are those of GPUs, and this build has no CUDA");
}

}  // namespace lockstep::tools
