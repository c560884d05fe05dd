// The matrix product of one device.
#ifndef LOCKSTEP_RUNTIME_MATMUL_H_
#define LOCKSTEP_RUNTIME_MATMUL_H_

#include "lockstep/runtime/worker.h"

namespace lockstep {

struct MatMulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  /// Adds to what `out` holds. Otherwise `out` is overwritten, and may be uninitialised.
  bool accumulate = false;
  /// Added to every row unless null: [n], contiguous, of out's type, not overlapping `out`. Not
  /// together with `accumulate`. The Tensor, a handle, need not outlive the call.
  const Tensor* bias = nullptr;
  /// Multiprocessors of a GPU that the product should do with, for collectives beside it (see
  /// AsyncOptions); 0: all. A wish that the library mostly grants.
  int max_multiprocessors = 0;
  /// On a GPU: no sum over k is cut into parts. Then a row of `out` has the same bits whatever
  /// other rows are computed with it, and whatever max_multiprocessors is: so it was found on
  /// Hopper, though cuBLASLt does not promise it. Slower where `out` is small. The CPU takes no
  /// notice of either.
  bool batch_invariant = false;
};

/// out = op(a) op(b) + bias, or out += op(a) op(b), where op transposes if asked. On the worker's
/// stream: on a GPU it returns before the product is done.
///
///   a:   [m, k], or [k, m] if transpose_a
///   b:   [k, n], or [n, k] if transpose_b
///   out: [m, n]; overlaps neither a nor b
///
/// a and b are both float32, both float64, or both of one 16-bit type; `out` is of the same type,
/// or float32 for 16-bit inputs. 16-bit inputs are multiplied and summed in float32, the bias with
/// them, and rounded once if `out` is 16-bit. float32 is computed in float32, unless the worker is
/// on a GPU and allows TF32 (Worker::set_allow_tf32). Each operand may be a slice along either
/// axis, as long as its last axis has stride 1. Any extent may be 0 (k = 0 gives zeros, or the
/// bias). kInvalidArgument: shapes, types or devices that do not go together. kResourceExhausted:
/// no scratch memory.
absl::Status MatMul(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                    MatMulOptions options = {});

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_MATMUL_H_
