#include "lockstep/runtime/stream.h"

#include "lockstep/runtime/cuda/stream.h"

namespace lockstep {

bool Stream::is_capturing() const {
  return !device_.is_cpu() && internal::cuda::IsCapturing(*this);
}

absl::Status Stream::Synchronize() const {
  if (device_.is_cpu()) return absl::OkStatus();
  return internal::cuda::Synchronize(*this);
}

}  // namespace lockstep
