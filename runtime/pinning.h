// Which core a rank's thread runs on.
#ifndef LOCKSTEP_RUNTIME_PINNING_H_
#define LOCKSTEP_RUNTIME_PINNING_H_

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/runtime/device.h"

struct hwloc_topology;

namespace lockstep::internal {

/// CPUs as the kernel numbers them, in rising order.
using Cpus = std::vector<int>;

/// The CPUs on which a thread may run: the calling one, unless another is named.
Cpus AllowedCpus(pid_t thread = 0);
/// How many CPUs the calling thread may use.
int NumUsableCores();

/// Where a group of threads is to run.
struct Placement {
  /// A CPU per rank; empty where the ranks are not pinned.
  Cpus cpus;
  /// "rank 0 on CPU 2, rank 1 on CPU 3", or why they are not pinned.
  std::string text;
};

/// What ChoosePlacement looks at.
struct PinningChoice {
  /// The CPUs of each core, neighbours next to each other.
  absl::Span<const Cpus> cores;
  Cpus allowed;
  /// CPUs to which other threads of this process are bound already.
  Cpus taken;
  /// Per rank, the CPUs near its device; empty: all are as near.
  std::vector<Cpus> near;
};

/// A core for each rank, of which nobody else has a part: near the rank's device where there are
/// enough, and spread evenly, so that the ranks share the sockets' memory and caches as little as
/// they can. Not pinned where there are fewer such cores than ranks.
Placement ChoosePlacement(const PinningChoice& choice);
/// The same, on this machine, for ranks on these devices and threads that the calling one makes.
Placement PlaceRanks(absl::Span<const Device> rank_devices);

/// Binds a thread to one CPU. False: the system refuses.
bool Pin(std::thread& thread, int cpu);

/// Whether this build can pin: it knows of cores through hwloc.
bool CanPin();
/// The cores of a topology that is loaded, in its logical order.
std::vector<Cpus> CoresOf(hwloc_topology* topology);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_PINNING_H_
