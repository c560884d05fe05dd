// The links of one pair of GPUs, measured and proved.
#include "lockstep/collective/cuda/transports.h"
#include "lockstep/tools/lockstep/bench/limits/pair.h"
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

namespace lockstep::tools {
namespace {

constexpr std::int64_t kBytes = 64 << 20;

// As a group of the two does when it chooses its transport.
absl::Status ProvePair(Device a, Device b) {
  return internal::cuda::ProvePeerAccess({a, b}, /*spoil=*/false);
}

}  // namespace

absl::StatusOr<std::vector<PeerLink>> MeasureLinksOf(Device a, Device b) {
  const absl::Status proof = ProvePair(a, b);
  // Other errors are those of the devices, not of the way between them.
  if (!proof.ok() && !absl::IsUnavailable(proof)) return proof;
  LOCKSTEP_ASSIGN_OR_RETURN(const LimitPair pair, MakePair(a, b, kBytes));
  std::vector<PeerLink> links;
  for (int from = 0; from < 2; ++from) {
    PeerLink& link =
        links.emplace_back(PeerLink{pair.devices[from], pair.devices[1 - from], proof});
    LOCKSTEP_ASSIGN_OR_RETURN(const Times copy, OneWayCopy(pair, from, kFewRounds));
    link.copy_gb_per_s = static_cast<double>(kBytes) / copy.p50 / 1e3;
    if (!proof.ok()) continue;
    LOCKSTEP_ASSIGN_OR_RETURN(link.load_ns, LoadLatency(pair, from, kFewRounds));
  }
  return links;
}

}  // namespace lockstep::tools
