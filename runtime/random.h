// Random numbers that depend on a seed and a position alone, so that any shard can be drawn without
// its neighbours.
#ifndef LOCKSTEP_RUNTIME_RANDOM_H_
#define LOCKSTEP_RUNTIME_RANDOM_H_

#include <cstdint>

#include "lockstep/runtime/worker.h"

namespace lockstep {

/// The element at `index` of the uniform sequence of `seed`: in [0, 1), a multiple of 2^-24.
/// SplitMix64 (Steele, Lea and Flood, 2014) entered at its index-th state.
float UniformAt(std::uint64_t seed, std::uint64_t index);

/// Fills `out`, a [rows, columns] block of a matrix of `full_columns` columns, with that block's
/// part of the full matrix's uniform numbers in [-bound, bound), so that every split of a matrix
/// gives the same full matrix. On the worker's stream; `out` is floating, with any strides.
/// kInvalidArgument: another type or device, or not inside the matrix.
///
///   out[i, j] = bound (2 UniformAt(seed, (first_row + i) full_columns + first_column + j) - 1)
absl::Status FillUniformBlock(Worker& worker, std::uint64_t seed, float bound,
                              std::int64_t first_row, std::int64_t first_column,
                              std::int64_t full_columns, const Tensor& out);

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_RANDOM_H_
