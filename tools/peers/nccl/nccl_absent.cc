#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {

std::string NcclVersion() { return ""; }

absl::StatusOr<std::unique_ptr<NcclPeer>> NcclPeer::Create(Executor&, bool) {
  return absl::UnavailableError(
      "--peer: this build has no NCCL; configure it with -DLOCKSTEP_NCCL=ON");
}

}  // namespace lockstep::tools
