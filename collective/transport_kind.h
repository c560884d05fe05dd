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
  /// that write to their peers and wait for them; eight such streams on a GPU, of all groups. Tests
  /// may ask for it where ranks share a GPU: the kernels then use fewer blocks, and nothing else
  /// may allocate on that GPU meanwhile.
  kPeer,
  /// Ranks on GPUs, any number on one, that need not reach each other's memory: inputs go through
  /// pinned memory of the host, of the size of the largest. Events order the streams. Cannot be
  /// captured in a graph.
  kStaged,
  /// Ranks on GPUs, any number on one: events order the streams, and no kernel waits for another.
  /// Cannot be captured in a graph.
  kOrdered,
};

/// "auto", "cpu", "peer", "staged", "ordered".
absl::string_view Name(TransportKind kind);
/// The inverse. kInvalidArgument: no such name.
absl::StatusOr<TransportKind> ParseTransportKind(absl::string_view name);

/// How the peer transport sums. Results do not depend on it, times do; `lockstep bench --tune`
/// measures it anew. The defaults were found on two H200 linked by NVLink.
struct AllReduceTuning {
  /// A sum of two ranks of up to this many bytes travels in lines that carry their own flag, a
  /// larger one in tiles that are pushed to the owner of each slice. For n ranks the limit is this
  /// divided by n - 1, since every line goes to every peer.
  std::int64_t max_lines_bytes = 8 << 20;
  /// The most thread blocks that each of the two kernels uses; fewer where groups share a GPU.
  int lines_blocks = 1104;
  int push_blocks = 132;
  /// Threads per block of the kernel for lines, unless it must do with fewer, larger ones.
  int lines_threads = 128;
  /// The largest tile, divided by n - 1 for n ranks. Larger tiles need fewer flags.
  std::int64_t push_tile_bytes = 32 << 10;
};

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_TRANSPORT_KIND_H_
