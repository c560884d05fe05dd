#include <algorithm>
#include <cstdlib>

#include "lockstep/collective/cuda/cuda.h"
#include "lockstep/collective/cuda/transports.h"

namespace lockstep::internal::cuda {
namespace {

bool ShareDevices(absl::Span<const Stream> streams) {
  for (std::size_t i = 0; i < streams.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (streams[i].device() == streams[j].device()) return true;
    }
  }
  return false;
}

// CUDA reads it too: then a launch returns only when its kernel has ended, so none may wait for
// another.
bool LaunchesBlock() {
  const char* const blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  return blocking != nullptr && absl::string_view(blocking) != "0" &&
         absl::string_view(blocking) != "";
}

absl::Status LoadEverywhere(absl::Span<const Stream> streams) {
  for (const Stream& stream : streams) {
    const DeviceGuard guard(stream.device());
    LOCKSTEP_RETURN_IF_CUDA_ERROR(stream.device(), LoadKernels());
  }
  return absl::OkStatus();
}

// Why the peer transport cannot serve these ranks; empty if it can.
std::string WhyNotPeer(absl::Span<const Stream> streams) {
  if (streams.size() == 1) return "";
  if (LaunchesBlock()) return "CUDA_LAUNCH_BLOCKING is set, so no kernel may wait for another";
  if (streams.size() > kMostPeers) {
    return absl::StrCat(streams.size(), " ranks are more than the ", kMostPeers,
                        " whose kernels wait for each other");
  }
  if (ShareDevices(streams)) return "ranks share a GPU, so no kernel may wait for another";
  return "";
}

}  // namespace

absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions& options) {
  if (streams.size() > kMostRanks) {
    return absl::UnavailableError(
        absl::StrCat("transport: ", streams.size(), " ranks on GPUs; there can be ", kMostRanks));
  }
  LOCKSTEP_RETURN_IF_ERROR(LoadEverywhere(streams));
  LOCKSTEP_ASSIGN_OR_RETURN(auto group, DeviceGroup::Create(streams, options.timeout));
  LOCKSTEP_RETURN_IF_ERROR(ProvePeerAccess(*group));
  const std::string why_not = WhyNotPeer(streams);
  const bool forced = options.kind == TransportKind::kPeer && streams.size() <= kMostPeers;
  if (options.kind == TransportKind::kCpu || (options.kind == TransportKind::kPeer && !forced)) {
    return absl::UnavailableError(
        absl::StrCat("transport: ", Name(options.kind), " asked for, but ",
                     why_not.empty() ? "all ranks are on GPUs" : why_not));
  }
  if (forced || (options.kind == TransportKind::kAuto && why_not.empty())) {
    LOCKSTEP_ASSIGN_OR_RETURN(auto transport, MakePeerTransport(std::move(group), options.tuning));
    return TransportChoice{std::move(transport),
                           forced ? "it was asked for"
                           : streams.size() == 1
                               ? "there is one rank"
                               : "every rank has a GPU that was proved to reach all others"};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto transport, MakeOrderedTransport(std::move(group)));
  return TransportChoice{std::move(transport),
                         options.kind == TransportKind::kOrdered ? "it was asked for" : why_not};
}

}  // namespace lockstep::internal::cuda
