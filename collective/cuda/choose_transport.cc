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

// Why the peer transport cannot serve these ranks, which reach each other's memory; empty if it
// can.
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

// The best transport for these ranks, and why.
struct Best {
  TransportKind kind;
  std::string reason;
};
Best BestFor(absl::Span<const Stream> streams, const absl::Status& proof) {
  if (!proof.ok()) return {TransportKind::kStaged, std::string(proof.message())};
  if (std::string why_not = WhyNotPeer(streams); !why_not.empty()) {
    return {TransportKind::kOrdered, std::move(why_not)};
  }
  return {TransportKind::kPeer, streams.size() == 1
                                    ? "there is one rank"
                                    : "every rank has a GPU that was proved to reach all others"};
}

absl::Status Refuse(TransportKind kind, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("transport: ", Name(kind), " asked for, but ", why));
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
  const absl::Status proof = ProvePeerAccess(*group);
  if (!proof.ok() && !absl::IsUnavailable(proof)) return proof;
  Best best = BestFor(streams, proof);
  if (options.kind != TransportKind::kAuto) best = {options.kind, "it was asked for"};
  switch (best.kind) {
    case TransportKind::kAuto:
    case TransportKind::kCpu:
      return Refuse(best.kind, "all ranks are on GPUs");
    case TransportKind::kPeer: {
      if (!proof.ok()) return Refuse(best.kind, proof.message());
      if (streams.size() > kMostPeers) return Refuse(best.kind, WhyNotPeer(streams));
      LOCKSTEP_ASSIGN_OR_RETURN(auto peer, MakePeerTransport(std::move(group), options.tuning));
      return TransportChoice{std::move(peer), std::move(best.reason)};
    }
    case TransportKind::kOrdered: {
      if (!proof.ok()) return Refuse(best.kind, proof.message());
      LOCKSTEP_ASSIGN_OR_RETURN(auto ordered, MakeOrderedTransport(std::move(group)));
      return TransportChoice{std::move(ordered), std::move(best.reason)};
    }
    case TransportKind::kStaged:
      break;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto staged, MakeStagedTransport(std::move(group)));
  return TransportChoice{std::move(staged), std::move(best.reason)};
}

}  // namespace lockstep::internal::cuda
