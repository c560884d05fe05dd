// Element-wise and row-wise math of one device: what layers need between two matrix products.
//
// Every function is called on the worker's thread and works on its stream: on a GPU it returns
// before the work is done, unless it says otherwise. Tensors are on the worker's device and are
// checked first: kInvalidArgument names the shape, type, device or pointer that does not fit. Types
// are floating unless stated; 16-bit types are computed in float32 and rounded once at the end.
// Inputs may be slices whose last axis has stride 1, and may be shared with other ranks as long as
// nobody writes to them. An output may be one of the inputs, but must not overlap one partly. A
// tensor without elements needs no work.
//
// Results do not depend on the floating-point mode of the calling thread (rounding, flushed
// subnormals, traps), which is left as it was. The same holds for matmul.h, random.h and update.h.
#ifndef LOCKSTEP_RUNTIME_ELEMENTWISE_H_
#define LOCKSTEP_RUNTIME_ELEMENTWISE_H_

#include <cstdint>

#include "lockstep/runtime/worker.h"

namespace lockstep {

/// Sets every element to `value`. Any type.
absl::Status Fill(Worker& worker, double value, const Tensor& out);

/// out = in, element by element, converting the type if they differ. Shapes are equal; any type,
/// any strides (on a GPU, up to 8 axes, not counting those that continue the next one in memory).
/// With a worker on a GPU one of the two may be on the CPU; such a copy returns when it is done.
absl::Status Copy(Worker& worker, const Tensor& in, const Tensor& out);

/// x[i, j] += bias[j].  x: [rows, features]; bias: [features], of x's type.
absl::Status AddBias(Worker& worker, const Tensor& bias, const Tensor& x);

/// out[j] = sum over i of x[i, j], added to what out[j] holds if `accumulate`.
/// x: [rows, features]; out: [features], of x's type or float32. The CPU adds the rows one after
/// the other; a GPU adds them in another order, which depends on the shape alone. Each gives the
/// same bits every time.
absl::Status ColumnSums(Worker& worker, const Tensor& x, const Tensor& out, bool accumulate);

enum class Activation : unsigned char { kRelu, kGelu };

/// out = f(x); ReLU is max(x, 0), and GELU is the exact one, x Phi(x) (Hendrycks and Gimpel, 2016).
/// Shapes are equal.
absl::Status Activate(Worker& worker, Activation activation, const Tensor& x, const Tensor& out);
/// grad_in = f'(x) grad_out, with the x that was given to Activate(). Shapes are equal.
absl::Status ActivateBackward(Worker& worker, Activation activation, const Tensor& x,
                              const Tensor& grad_out, const Tensor& grad_in);

/// Activate() into a new tensor of x's shape and type.
absl::StatusOr<Tensor> Relu(Worker& worker, const Tensor& x);
absl::StatusOr<Tensor> Gelu(Worker& worker, const Tensor& x);

struct CrossEntropyResult {
  /// Mean over the rows of -log softmax(logits)[label], in nats.
  double loss;
  /// Rows whose largest logit (the first of equals) is the label's.
  std::int64_t num_correct;
};

/// Softmax cross-entropy, and its gradient with respect to the logits.
///
///   logits: [rows, classes]
///   labels: int32 [rows], each in [0, classes)
///   grad:   like logits, or without elements to skip it
///
/// Returns when it is done, on a GPU too. kInvalidArgument also for a label out of range, naming
/// row and label.
absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker& worker, const Tensor& logits,
                                                       const Tensor& labels, const Tensor& grad);

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_ELEMENTWISE_H_
