// The ways in which data can move between ranks, and what can be tuned about them.
#ifndef LOCKSTEP_COLLECTIVE_TRANSPORT_KIND_H_
#define LOCKSTEP_COLLECTIVE_TRANSPORT_KIND_H_

#include <cstdint>

#include "lockstep/runtime/status.h"

namespace lockstep {

enum class TransportKind : std::uint8_t {
  /// The best that these devices allow.
  kAuto,
  /// All ranks on the CPU: straight from memory to memory.
  kCpu,
  /// Two to eight ranks on GPUs of their own that were proved to reach each other's memory: kernels
  /// that write to their peers and wait for them. For tests, it can be asked for where ranks share
  /// a GPU: they take fewer blocks there, nothing else may allocate on it meanwhile, and each
  /// stream needs a hardware queue of its own (CUDA_DEVICE_MAX_CONNECTIONS).
  kPeer,
  /// Ranks on GPUs, any number on one, that need not reach each other's memory: inputs go through
  /// pinned memory of the host, as much as the largest. Events order their streams. Cannot be
  /// captured in a graph.
  kStaged,
  /// Ranks on GPUs, any number on one: events order their streams, no kernel waits for another.
  /// Cannot be captured in a graph.
  kOrdered,
};

/// "auto", "cpu", "peer", "staged", "ordered".
absl::string_view Name(TransportKind kind);
/// The inverse. kInvalidArgument: none of them.
absl::StatusOr<TransportKind> ParseTransportKind(absl::string_view name);

/// How the peer transport sums. Results do not depend on it, times do; `lockstep bench --tune`
/// measures it anew. The defaults were found on two H200 linked by NVLink.
struct AllReduceTuning {
  /// Up to so many bytes a sum of two ranks travels in lines that carry their own flag, from there
  /// on in tiles that are pushed to the owner of a slice. Of n ranks: up to so many by n - 1, since
  /// every line goes to every peer.
  std::int64_t max_lines_bytes = 8 << 20;
  /// Thread blocks of the two kernels at most; fewer where ranks share a GPU.
  int lines_blocks = 1104;
  int push_blocks = 132;
  /// Threads of a block that carries lines.
  int lines_threads = 128;
  /// Size of a tile at most, of n ranks by n - 1: the larger, the fewer flags.
  std::int64_t push_tile_bytes = 32 << 10;
};

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_TRANSPORT_KIND_H_
