// Comparing tensors, and sharded results with unsharded ones.
//
// Tensors may be strided, on the worker's device or on the CPU. One that cannot be read is refused
// before any is: kInvalidArgument for an impossible shape, a null or misaligned pointer with
// elements, or another device.
#ifndef LOCKSTEP_TESTS_HARNESS_COMPARE_H_
#define LOCKSTEP_TESTS_HARNESS_COMPARE_H_

#include <vector>

#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

/// A contiguous copy on the CPU that owns its memory. Waits for the worker's stream.
absl::StatusOr<Tensor> ToHost(Worker& worker, const Tensor& tensor);

/// The elements as doubles, in row-major order; exact for every type but int64 beyond 2^53. Waits
/// for the worker's stream.
absl::StatusOr<std::vector<double>> ToDoubles(Worker& worker, const Tensor& tensor);

/// OK if `actual` has the shape and type of `expected`, and no element differs by more than `ulps`
/// units in the last place of the largest finite expected element (0: equal; a NaN equals a NaN, an
/// infinity itself). Of the largest, because a sum in which large numbers cancel is no more exact
/// than they are. For integers the unit is 1, and they are compared exactly. Where no finite
/// element but 0 is expected, the unit is the type's smallest number. kInternal: `what`, the first
/// bad index, both values, how far apart, and how many are bad. kInvalidArgument: `ulps` is
/// negative, infinite or NaN.
absl::Status ExpectClose(Worker& worker, absl::string_view what, const Tensor& actual,
                         const Tensor& expected, double ulps);

/// The same for a result of which each rank holds a part along `axis` (-1: the last), in rank
/// order, against the whole, which every rank has. A collective.
absl::Status ExpectGathersTo(Worker& worker, Communicator& comm, absl::string_view what,
                             const Tensor& part, int axis, const Tensor& expected, double ulps);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_COMPARE_H_
