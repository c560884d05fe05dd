// Element-wise and row-wise math of one device: what layers need between two matrix products.
//
// Every function runs on the worker's stream, takes tensors of that worker's device and checks
// them: kInvalidArgument says which shape, type, device or pointer does not fit. It is for the
// worker's thread; inputs may be shared with other ranks, as long as nobody writes to them.
// Floating types only unless it says otherwise; 16-bit types are computed in float32 and rounded
// once on the way out. Inputs may be slices whose last axis has stride 1. An output may be one of
// the inputs itself, but may not overlap one partly. A tensor of no elements is done at once. The
// bits do not depend on the floating-point mode that the calling thread is in (rounding, subnormals
// flushed, traps), which is left as it was; nor do those of matmul.h, random.h and update.h.
#ifndef LOCKSTEP_RUNTIME_ELEMENTWISE_H_
#define LOCKSTEP_RUNTIME_ELEMENTWISE_H_

#include <cstdint>

#include "lockstep/runtime/worker.h"

namespace lockstep {

/// Sets every element to `value`. Any type.
absl::Status Fill(Worker& worker, double value, const Tensor& out);

/// out = in, element by element, converting the type if they differ. Shapes are equal; any type,
/// any strides (on a GPU, up to 8 axes that do not lie against each other in memory). With a worker
/// on a GPU one of the two may be on the CPU; such a copy returns when it is done.
absl::Status Copy(Worker& worker, const Tensor& in, const Tensor& out);

/// x[i, j] += bias[j].  x: [rows, features]; bias: [features], of x's type.
absl::Status AddBias(Worker& worker, const Tensor& bias, const Tensor& x);

/// out[j] (+)= sum over i of x[i, j].  x: [rows, features]; out: [features], of x's type or
/// float32. The CPU adds rows one after the other from the first; a GPU adds them in another order,
/// one that depends on the shape alone. Both give the same result every time.
absl::Status ColumnSums(Worker& worker, const Tensor& x, const Tensor& out, bool accumulate);

enum class Activation : unsigned char { kRelu, kGelu };

/// out = f(x); ReLU is max(x, 0), and GELU is the exact one, x Phi(x) (Hendrycks and Gimpel, 2016).
/// Shapes are equal.
absl::Status Activate(Worker& worker, Activation activation, const Tensor& x, const Tensor& out);
/// grad_in = f'(x) grad_out, with the x that went into Activate. Shapes are equal.
absl::Status ActivateBackward(Worker& worker, Activation activation, const Tensor& x,
                              const Tensor& grad_out, const Tensor& grad_in);

/// Activate() into a new tensor.
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
/// Waits for the device. kInvalidArgument also for a label out of range, naming row and label.
absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker& worker, const Tensor& logits,
                                                       const Tensor& labels, const Tensor& grad);

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_ELEMENTWISE_H_
