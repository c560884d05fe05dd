// The arithmetic of reductions on the CPU, in the fixed tree order that every transport must
// reproduce.
#ifndef LOCKSTEP_COLLECTIVE_REDUCE_TREE_H_
#define LOCKSTEP_COLLECTIVE_REDUCE_TREE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"

namespace lockstep::internal {

/// outputs[*][i] = op over inputs[0..][i], for i in [0, count): see ReduceOp for the order and the
/// rounding. Every output gets the same bits. Pointers are aligned to their element; an output may
/// be exactly one of the inputs, and may not overlap one partly. `streaming` writes past the cache,
/// for outputs that will not be read soon. Runs on the calling thread, on the best vector unit of
/// this CPU (Highway's dynamic dispatch).
void ReduceTree(DType dtype, ReduceOp op, absl::Span<const void* const> inputs,
                absl::Span<void* const> outputs, std::int64_t count, bool streaming);

/// The index of the first NaN among `count` elements, or -1.
std::int64_t FirstNan(DType dtype, const void* data, std::int64_t count);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_REDUCE_TREE_H_
