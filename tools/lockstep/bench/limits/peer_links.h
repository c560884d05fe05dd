// What lies between the GPUs of this machine.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PEER_LINKS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PEER_LINKS_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/runtime/device.h"

namespace lockstep::tools {

/// From one GPU to another.
struct PeerLink {
  Device from;
  Device to;
  /// OK: groups with both use each other's memory. Or why they do not; a group proves both
  /// directions, and uses neither if one fails.
  absl::Status proof;
  /// One way, 64 MiB at a time, by the copy engine; through the host where the GPUs do not reach
  /// each other.
  double copy_gb_per_s = 0;
  /// Of a load by `from` from the memory of `to`; 0 unless proved.
  double load_ns = 0;
};

/// "cuda:0 -> cuda:1: proved, copies 371.2 GB/s, loads 652 ns".
std::string ToString(const PeerLink& link);

/// Both directions of every pair of distinct GPUs among the devices, a pair after the other. No
/// work may be under way on them. Some thirty copies of 64 MiB and ten thousand loads a pair: meant
/// to take tens of milliseconds over NVLink. kResourceExhausted: no memory.
absl::StatusOr<std::vector<PeerLink>> MeasurePeerLinks(absl::Span<const Device> devices);

/// The same of one pair, for MeasurePeerLinks. kUnavailable: this build has no CUDA.
absl::StatusOr<std::vector<PeerLink>> MeasureLinksOf(Device a, Device b);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_LIMITS_PEER_LINKS_H_
