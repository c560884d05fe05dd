// How bytes get from rank to rank once the ranks have met.
#ifndef LOCKSTEP_COLLECTIVE_TRANSPORT_H_
#define LOCKSTEP_COLLECTIVE_TRANSPORT_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/collective/device_work.h"
#include "lockstep/collective/transport_kind.h"
#include "lockstep/runtime/status.h"
#include "lockstep/runtime/stream.h"

namespace lockstep::internal {

/// One rank's share of moving one round's data.
struct Round {
  int rank;
  /// Counted since the group was made or reset.
  std::uint64_t number;
  /// What every rank brought, checked to fit together; valid until every rank has returned from
  /// Move.
  absl::Span<const CollectiveCall* const> calls;
  /// Whether the round has failed meanwhile. Long moves ask now and then, and give up.
  absl::FunctionRef<bool()> failed;

  int world_size() const { return static_cast<int>(calls.size()); }
  const CollectiveCall& call(int of) const { return *calls[of]; }
  const CollectiveCall& mine() const { return call(rank); }
};

/// Bytes that a transport holds for one rank: on the rank's GPU, and pinned in the host's memory.
struct TransportMemory {
  std::int64_t device_bytes = 0;
  std::int64_t pinned_bytes = 0;
};

/// Moves and reduces. In each round every rank, on its own thread, calls Prepare; the ranks meet,
/// and all calls are found to agree; every rank calls Move, and if the transport asks for it, they
/// meet again and call Finish. Until then (or else until the work queued by Move is done) every
/// rank's memory may be read and written.
///
/// A transport on the CPU is done when Move returns; one on GPUs queues work on the rank's stream,
/// and everything that the rank queues behind finds the result.
///
/// Every transport gives the same bits (see ReduceOp); `cpu` is the reference.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual absl::string_view name() const = 0;
  /// What it holds for this rank.
  virtual TransportMemory memory(int /*rank*/) const { return {}; }

  virtual absl::Status Prepare(int /*rank*/, const CollectiveCall& /*mine*/) {
    return absl::OkStatus();
  }
  virtual absl::Status Move(const Round& round) = 0;
  virtual bool meets_again() const { return true; }
  virtual absl::Status Finish(const Round& /*round*/) { return absl::OkStatus(); }
  /// While no rank is in a call and all queued work is done: starts afresh.
  virtual absl::Status Reset() { return absl::OkStatus(); }
};

/// Ranks on the CPU: each rank reduces its own slice straight from all inputs into all outputs. No
/// staging, so 2 S bytes move per rank for an all-reduce of S.
std::unique_ptr<Transport> MakeCpuTransport();

struct TransportOptions {
  TransportKind kind = TransportKind::kAuto;
  /// How long work on a device waits for another rank.
  std::chrono::nanoseconds timeout{0};
  AllReduceTuning tuning = {};
  /// For tests: a byte changes on its way while peer access is being proved.
  bool spoil_proof = false;
};

struct TransportChoice {
  /// Outlives the transport, which queues the work.
  std::unique_ptr<DeviceWork> device_work;
  std::unique_ptr<Transport> transport;
  /// Why this one: "all ranks are on the CPU".
  std::string reason;
};

/// The best transport for ranks that work on these streams, or the one that is asked for.
/// kUnavailable: it cannot serve them.
absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions& options);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_TRANSPORT_H_
