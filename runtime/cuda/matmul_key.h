// What distinguishes one matrix product from another to the library that computes it.
#ifndef LOCKSTEP_RUNTIME_CUDA_MATMUL_KEY_H_
#define LOCKSTEP_RUNTIME_CUDA_MATMUL_KEY_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "lockstep/runtime/tensor.h"

namespace lockstep::internal::cuda {

/// A product as cuBLASLt sees it. Two with equal keys take one algorithm.
struct PlanKey {
  struct Operand {
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t row_stride;
    std::int64_t alignment_bytes;
    DType dtype;

    bool operator==(const Operand&) const = default;
  };

  Operand a;
  Operand b;
  Operand out;
  bool transpose_a;
  bool transpose_b;
  bool accumulate;
  bool bias;
  bool tf32;

  bool operator==(const PlanKey&) const = default;
};

struct PlanKeyHash {
  std::size_t operator()(const PlanKey& key) const {
    // FNV-1a, a word at a time.
    std::uint64_t hash = 0xCBF29CE484222325u;
    const auto mix = [&hash](std::int64_t word) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x100000001B3u;
      hash ^= hash >> 32;
    };
    for (const PlanKey::Operand& operand : {key.a, key.b, key.out}) {
      mix(operand.rows);
      mix(operand.columns);
      mix(operand.row_stride);
      mix(operand.alignment_bytes);
      mix(static_cast<std::int64_t>(operand.dtype));
    }
    mix(key.transpose_a + 2 * key.transpose_b + 4 * key.accumulate + 8 * key.bias + 16 * key.tf32);
    return hash;
  }
};

inline PlanKey::Operand DescribeOperand(const Tensor& tensor) {
  // Kernels for whole 16-byte accesses and for more, and the ones that take everything.
  std::int64_t alignment = 256;
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.raw_data());
  if (address % 256 != 0) alignment = 16;
  if (address % 16 != 0) alignment = static_cast<std::int64_t>(SizeOf(tensor.dtype()));
  return {.rows = tensor.extent(0),
          .columns = tensor.extent(1),
          // At least the row, also where there is one row.
          .row_stride = tensor.extent(0) > 1 ? tensor.strides()[0] : tensor.extent(1),
          .alignment_bytes = alignment,
          .dtype = tensor.dtype()};
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_MATMUL_KEY_H_
