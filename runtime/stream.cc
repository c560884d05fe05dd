#include "lockstep/runtime/stream.h"

#include "lockstep/runtime/cuda/stream.h"

namespace lockstep {

absl::Status Stream::Synchronize() const {
  if (device_.is_cpu()) return absl::OkStatus();
  return internal::cuda::Synchronize(*this);
}

}  // namespace lockstep
