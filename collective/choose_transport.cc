#include <algorithm>

#include "lockstep/collective/cuda/choose_transport.h"

namespace lockstep::internal {

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
  return TransportChoice{std::make_unique<DeviceWork>(), MakeCpuTransport(),
                         "all ranks are on the CPU"};
}

}  // namespace lockstep::internal
