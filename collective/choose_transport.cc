#include "lockstep/collective/transport.h"

namespace lockstep::internal {

absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Device> devices) {
  for (const Device& device : devices) {
    if (device.is_cpu()) continue;
    return absl::UnavailableError(
        absl::StrCat("transport: a rank is on ", device.ToString(),
                     ", but this build moves data between ranks on the CPU alone"));
  }
  return TransportChoice{MakeCpuTransport(), "all ranks are on the CPU"};
}

}  // namespace lockstep::internal
