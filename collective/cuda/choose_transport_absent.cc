// A build without CUDA.
#include "lockstep/collective/cuda/choose_transport.h"

namespace lockstep::internal::cuda {

absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions&) {
  return absl::UnavailableError(absl::StrCat("transport: a rank is on ",
                                             streams.front().device().ToString(),
                                             ", but this build has no CUDA"));
}

}  // namespace lockstep::internal::cuda
