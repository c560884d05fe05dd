#include <algorithm>

#include "lockstep/collective/cuda/cuda.h"
#include "lockstep/collective/transport.h"

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

namespace internal {

absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions& options) {
  const auto on_cpu = std::count_if(streams.begin(), streams.end(),
                                    [](const Stream& s) { return s.device().is_cpu(); });
  if (on_cpu != 0 && on_cpu != static_cast<std::ptrdiff_t>(streams.size())) {
    return absl::UnavailableError(absl::StrCat("transport: ", on_cpu, " of ", streams.size(),
                                               " ranks are on the CPU and the others on GPUs; a "
                                               "group is on one or the other"));
  }
  if (on_cpu == 0) return cuda::ChooseTransport(streams, options);
  if (options.kind != TransportKind::kAuto && options.kind != TransportKind::kCpu) {
    return absl::UnavailableError(absl::StrCat("transport: ", Name(options.kind),
                                               " asked for, but all ranks are on the CPU"));
  }
  return TransportChoice{MakeCpuTransport(), "all ranks are on the CPU"};
}

}  // namespace internal
}  // namespace lockstep
