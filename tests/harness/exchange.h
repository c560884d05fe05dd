// What the ranks of a check tell each other, so that all of them come to one verdict.
#ifndef LOCKSTEP_TESTS_HARNESS_EXCHANGE_H_
#define LOCKSTEP_TESTS_HARNESS_EXCHANGE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

/// A collective, with equally many `numbers` on every rank. OK: every rank's numbers, in rank
/// order. If `mine` is not OK on some rank: that of the first such rank, code and the first 1000
/// bytes of its text, alike on every rank.
absl::StatusOr<std::vector<std::vector<std::int64_t>>> Exchange(
    Worker& worker, Communicator& comm, const absl::Status& mine,
    absl::Span<const std::int64_t> numbers);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_EXCHANGE_H_
