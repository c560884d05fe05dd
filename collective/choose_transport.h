// Which transport serves a group.
#ifndef LOCKSTEP_COLLECTIVE_CHOOSE_TRANSPORT_H_
#define LOCKSTEP_COLLECTIVE_CHOOSE_TRANSPORT_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "lockstep/collective/device_work.h"
#include "lockstep/collective/transport.h"
#include "lockstep/collective/transport_kind.h"
#include "lockstep/runtime/stream.h"

namespace lockstep::internal {

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

#endif  // LOCKSTEP_COLLECTIVE_CHOOSE_TRANSPORT_H_
