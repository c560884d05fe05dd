// Comparing tensors, and sharded results with unsharded ones.
#ifndef LOCKSTEP_TESTS_HARNESS_COMPARE_H_
#define LOCKSTEP_TESTS_HARNESS_COMPARE_H_

#include <vector>

#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

/// The elements as doubles, in row-major order; exact for every type but int64 beyond 2^53. Waits
/// for the worker's stream.
absl::StatusOr<std::vector<double>> ToDoubles(Worker& worker, const Tensor& tensor);

/// OK if `actual` has the shape and type of `expected`, and no element is further from it than
/// `ulps` units in the last place of the largest expected element (0: equal; a NaN equals a NaN).
/// Units of the largest, because a sum of large numbers that cancel is no more exact than they
/// are. kInternal: `what`, the first bad index, both values, how far apart, and how many are bad.
absl::Status ExpectClose(Worker& worker, absl::string_view what, const Tensor& actual,
                         const Tensor& expected, double ulps);

/// The same for a result of which each rank holds a part along `axis` (-1: the last), in rank
/// order, against the whole, which every rank has. A collective of the group.
absl::Status ExpectGathersTo(Worker& worker, Communicator& comm, absl::string_view what,
                             const Tensor& part, int axis, const Tensor& expected, double ulps);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_COMPARE_H_
