#include "lockstep/runtime/stream.h"

namespace lockstep {

absl::Status Stream::Synchronize() const {
  if (device_.is_cpu()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("stream: ", device_.ToString(), " asked for, but this build has no CUDA"));
}

}  // namespace lockstep
