#include "lockstep/runtime/random.h"

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/math.h"

namespace lockstep {

float UniformAt(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-24f;
}

absl::Status FillUniformBlock(Worker& worker, std::uint64_t seed, float bound,
                              std::int64_t first_row, std::int64_t first_column,
                              std::int64_t full_columns, const Tensor& out) {
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckMemory("uniform block", "out", out));
  if (out.num_axes() != 2 || !IsFloating(out.dtype()) || out.device() != worker.device() ||
      first_row < 0 || first_column < 0 || out.extent(1) > full_columns ||
      first_column > full_columns - out.extent(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("uniform block: ", out.ToString(), " from row ", first_row, ", column ",
                     first_column, " of a matrix of ", full_columns,
                     " columns; it must be floating, [rows, columns], and inside"));
  }
  if (out.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu()) {
    return internal::cuda::FillUniformBlock(worker, seed, bound, first_row, first_column,
                                            full_columns, out);
  }
  internal::VisitFloating(out.dtype(), [&]<typename T>() {
    for (std::int64_t i = 0; i < out.extent(0); ++i) {
      T* const row = out.data<T>() + i * out.strides()[0];
      // Positions are unsigned: a row far enough down wraps around.
      const std::uint64_t begin =
          (static_cast<std::uint64_t>(first_row) + static_cast<std::uint64_t>(i)) *
              static_cast<std::uint64_t>(full_columns) +
          static_cast<std::uint64_t>(first_column);
      for (std::int64_t j = 0; j < out.extent(1); ++j) {
        const float value =
            bound * (2 * UniformAt(seed, begin + static_cast<std::uint64_t>(j)) - 1);
        internal::Store(row[j * out.strides()[1]], value);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace lockstep
