// How bytes get from rank to rank once the ranks have met.
#ifndef LOCKSTEP_COLLECTIVE_TRANSPORT_H_
#define LOCKSTEP_COLLECTIVE_TRANSPORT_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/device.h"
#include "lockstep/runtime/status.h"

namespace lockstep::internal {

/// One rank's share of moving one round's data.
struct Round {
  int rank;
  /// What every rank brought, checked to fit together; valid until every rank has returned from
  /// Move.
  absl::Span<const CollectiveCall* const> calls;
  /// Whether the round has failed meanwhile. Long moves ask now and then, and give up.
  absl::FunctionRef<bool()> failed;

  int world_size() const { return static_cast<int>(calls.size()); }
  const CollectiveCall& mine() const { return *calls[static_cast<std::size_t>(rank)]; }
};

/// Moves and reduces. Every rank of the group calls Move for the same round, each on its own
/// thread, after a meeting at which all calls were found to agree; the ranks meet once more when
/// all have returned, so until then every rank's memory may be read and written. Shared by all
/// ranks: Move must not change the transport.
///
/// Every transport gives the same bits (see ReduceOp); `cpu` is the reference.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual absl::string_view name() const = 0;
  virtual absl::Status Move(const Round& round) const = 0;
};

/// Ranks on the CPU: each rank reduces its own slice straight from all inputs into all outputs. No
/// staging, so 2 S bytes move per rank for an all-reduce of S.
std::unique_ptr<Transport> MakeCpuTransport();

struct TransportChoice {
  std::unique_ptr<Transport> transport;
  /// Why this one: "all ranks are on the CPU".
  std::string reason;
};

/// The best transport for ranks on these devices. kUnavailable: none can serve them.
absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Device> devices);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_TRANSPORT_H_
