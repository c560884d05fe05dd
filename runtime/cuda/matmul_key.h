// What distinguishes one matrix product from another to the library that computes it.
#ifndef LOCKSTEP_RUNTIME_CUDA_MATMUL_KEY_H_
#define LOCKSTEP_RUNTIME_CUDA_MATMUL_KEY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

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
    template <typename H>
    friend H AbslHashValue(H hash, const Operand& operand) {
      return H::combine(std::move(hash), operand.rows, operand.columns, operand.row_stride,
                        operand.alignment_bytes, operand.dtype);
    }
  };

  Operand a;
  Operand b;
  Operand out;
  bool transpose_a;
  bool transpose_b;
  bool accumulate;
  bool bias;
  bool tf32;
  bool batch_invariant;
  int max_multiprocessors;

  bool operator==(const PlanKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H hash, const PlanKey& key) {
    return H::combine(std::move(hash), key.a, key.b, key.out, key.transpose_a, key.transpose_b,
                      key.accumulate, key.bias, key.tf32, key.batch_invariant,
                      key.max_multiprocessors);
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
