// Whether the calls that the ranks bring to one round fit together.
#ifndef LOCKSTEP_COLLECTIVE_AGREEMENT_H_
#define LOCKSTEP_COLLECTIVE_AGREEMENT_H_

#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/status.h"

namespace lockstep::internal {

/// OK when all ranks ask for one and the same thing and no rank's output overlaps memory of
/// another; `calls` holds one call per rank. Allocates nothing on that path. kFailedPrecondition:
/// names the field that differs and what every rank asked for. kInvalidArgument: overlapping
/// memory, naming both ranks.
absl::Status CheckAgreement(absl::Span<const CollectiveCall* const> calls);

/// "rank 0", "ranks 0, 1, 2".
std::string RankList(absl::Span<const int> ranks);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_AGREEMENT_H_
