#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace lockstep::tools {

std::string ToString(const PeerLink& link) {
  std::string text =
      absl::StrFormat("%s -> %s: %s, copies %.1f GB/s", link.from.ToString(), link.to.ToString(),
                      link.proof.ok() ? "proved" : "not proved", link.copy_gb_per_s);
  if (link.proof.ok()) {
    absl::StrAppendFormat(&text, ", loads %.0f ns", link.load_ns);
  } else {
    absl::StrAppend(&text, ": ", link.proof.message());
  }
  return text;
}

absl::StatusOr<std::vector<PeerLink>> MeasurePeerLinks(absl::Span<const Device> devices) {
  std::vector<Device> gpus;
  for (const Device& device : devices) {
    if (!device.is_cpu() && std::find(gpus.begin(), gpus.end(), device) == gpus.end())
      gpus.push_back(device);
  }
  std::vector<PeerLink> all;
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    for (std::size_t j = i + 1; j < gpus.size(); ++j) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<PeerLink> links,
                                MeasureLinksOf(gpus[i], gpus[j]));
      all.insert(all.end(), links.begin(), links.end());
    }
  }
  return all;
}

}  // namespace lockstep::tools
