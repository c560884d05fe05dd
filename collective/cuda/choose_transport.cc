#include "lockstep/collective/cuda/choose_transport.h"

#include <cstdlib>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/transports.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {
namespace {

// CUDA reads it too: then a launch returns only when its kernel has ended, so none may wait for
// another.
bool LaunchesBlock() {
  const char* const blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  return blocking != nullptr && absl::string_view(blocking) != "0" &&
         absl::string_view(blocking) != "";
}

absl::Status LoadEverywhere(absl::Span<const Stream> streams) {
  for (const Stream& stream : streams) {
    LOCKSTEP_RETURN_IF_ERROR(CheckStream(stream));
    const DeviceGuard guard(stream.device());
    LOCKSTEP_RETURN_IF_CUDA_ERROR(stream.device(), LoadKernels());
  }
  return absl::OkStatus();
}

absl::Status Refuse(TransportKind kind, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("transport: ", Name(kind), " asked for, but ", why));
}

// Room for kernels that wait. kUnavailable: the peer transport cannot serve these ranks.
// kResourceExhausted: it could, if there were fewer groups.
absl::Status PrepareForPeers(DeviceGroup& group, const absl::Status& proof,
                             const AllReduceTuning& tuning) {
  LOCKSTEP_RETURN_IF_ERROR(proof);
  if (group.world_size() > kMaxPeers) {
    return absl::UnavailableError(
        absl::StrCat("it serves ", kMaxPeers, " ranks and there are ", group.world_size()));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckTuning(tuning));
  return group.world_size() == 1 ? absl::OkStatus() : group.TakeRoom(tuning.push_blocks);
}

}  // namespace

absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions& options) {
  if (streams.size() > kMaxRanks) {
    return absl::UnavailableError(
        absl::StrCat("transport: ", streams.size(), " ranks on GPUs; there can be ", kMaxRanks));
  }
  LOCKSTEP_RETURN_IF_ERROR(LoadEverywhere(streams));
  LOCKSTEP_ASSIGN_OR_RETURN(auto group, DeviceGroup::Create(streams, options.timeout));
  const std::vector<Device> devices = group->devices();
  const absl::Status proof = ProvePeerAccess(devices, options.spoil_proof);
  if (!proof.ok() && !absl::IsUnavailable(proof)) return proof;
  BestTransport best = ChooseBest(devices, proof, LaunchesBlock());
  if (options.kind != TransportKind::kAuto) best = {options.kind, "it was asked for"};
  if (best.kind == TransportKind::kPeer) {
    const absl::Status ready = PrepareForPeers(*group, proof, options.tuning);
    if (absl::IsUnavailable(ready) || absl::IsResourceExhausted(ready)) {
      if (options.kind == TransportKind::kPeer) return Refuse(best.kind, ready.message());
      best = {TransportKind::kOrdered, std::string(ready.message())};
    } else if (!ready.ok()) {
      return ready;
    }
  }
  std::unique_ptr<Transport> transport;
  switch (best.kind) {
    case TransportKind::kAuto:
    case TransportKind::kCpu:
      return Refuse(best.kind, "all ranks are on GPUs");
    case TransportKind::kPeer:
      LOCKSTEP_ASSIGN_OR_RETURN(transport, MakePeerTransport(*group, options.tuning));
      break;
    case TransportKind::kOrdered:
      if (!proof.ok()) return Refuse(best.kind, proof.message());
      LOCKSTEP_ASSIGN_OR_RETURN(transport, MakeOrderedTransport(*group));
      break;
    case TransportKind::kStaged:
      LOCKSTEP_ASSIGN_OR_RETURN(transport, MakeStagedTransport(*group));
      break;
  }
  return TransportChoice{std::move(group), std::move(transport), std::move(best.reason)};
}

}  // namespace lockstep::internal::cuda
