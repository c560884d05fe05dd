// The CUDA side of collective/choose_transport.cc. A build without CUDA has the same function
// (choose_transport_absent.cc).
#ifndef LOCKSTEP_COLLECTIVE_CUDA_CHOOSE_TRANSPORT_H_
#define LOCKSTEP_COLLECTIVE_CUDA_CHOOSE_TRANSPORT_H_

#include "lockstep/collective/transport.h"

namespace lockstep::internal::cuda {

/// The best transport for ranks on these GPUs, or the one that `options` names. kUnavailable: it
/// cannot serve them, and why. kResourceExhausted: no memory for its buffers.
absl::StatusOr<TransportChoice> ChooseTransport(absl::Span<const Stream> streams,
                                                const TransportOptions& options);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_CHOOSE_TRANSPORT_H_
