#include "lockstep/collective/transport_kind.h"

namespace lockstep {
namespace {

constexpr TransportKind kAllKinds[] = {TransportKind::kAuto, TransportKind::kCpu,
                                       TransportKind::kPeer, TransportKind::kStaged,
                                       TransportKind::kOrdered};

}  // namespace

absl::string_view Name(TransportKind kind) {
  switch (kind) {
    case TransportKind::kAuto:
      return "auto";
    case TransportKind::kCpu:
      return "cpu";
    case TransportKind::kPeer:
      return "peer";
    case TransportKind::kStaged:
      return "staged";
    case TransportKind::kOrdered:
      break;
  }
  return "ordered";
}

absl::StatusOr<TransportKind> ParseTransportKind(absl::string_view name) {
  for (const TransportKind kind : kAllKinds) {
    if (name == Name(kind)) return kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("transport \"", name, "\": there are auto, cpu, peer, staged and ordered"));
}

}  // namespace lockstep
