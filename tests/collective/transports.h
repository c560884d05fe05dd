// The transports that one test body runs over.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_TRANSPORTS_H_
#define LOCKSTEP_TESTS_COLLECTIVE_TRANSPORTS_H_

#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/guarded.h"
#include "lockstep/tests/gpus.h"
#include "lockstep/tests/ranks.h"

namespace lockstep::testing {

/// Where the conformance suite runs. A new transport needs one line.
struct TransportCase {
  const char* name;
  std::vector<Device> devices;
  CollectiveBarrier::Options options = {};
  int max_ranks = 9;

  int min_ranks() const { return static_cast<int>(devices.size()); }
};

/// Small buffers and few blocks, so that short messages take every path.
inline CollectiveBarrier::Options SharedPeer() {
  return {.transport = TransportKind::kPeer,
          .tuning = {.max_lines_bytes = 2048,
                     .lines_blocks = 4,
                     .push_blocks = 4,
                     .lines_threads = 64,
                     .push_tile_bytes = 4096}};
}

/// Those that this machine can run. For cases tagged [gpu].
inline std::vector<TransportCase> Transports() {
  std::vector<TransportCase> cases = {{"cpu", {Device::Cpu()}}};
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() >= 1) {
    const Device one = gpus[0];
    cases.push_back({"ordered, one GPU", {one}, {.transport = TransportKind::kOrdered}});
    cases.push_back({"staged, one GPU", {one}, {.transport = TransportKind::kStaged}});
    cases.push_back({"peer, one GPU", {one}, SharedPeer(), 8});
  }
  if (gpus.size() >= 2) {
    const std::vector<Device> two = {gpus[0], gpus[1]};
    cases.push_back({"ordered, two GPUs", two, {.transport = TransportKind::kOrdered}});
    cases.push_back({"staged, two GPUs", two, {.transport = TransportKind::kStaged}});
    cases.push_back({"peer, two GPUs, dealt", two, SharedPeer(), 8});
    cases.push_back({"peer, two GPUs", two, {}, 2});
  }
  return cases;
}

/// Ranks on one of them.
inline absl::StatusOr<Ranks> CreateRanks(int world_size, const TransportCase& transport) {
  return Ranks::Create(world_size, transport.options, transport.devices);
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_TRANSPORTS_H_
