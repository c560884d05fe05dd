// The arithmetic of optimizers on one device: one fused pass over a parameter's elements, with the
// same bits on every device.
#ifndef LOCKSTEP_RUNTIME_UPDATE_H_
#define LOCKSTEP_RUNTIME_UPDATE_H_

#include <cstdint>

#include "lockstep/runtime/worker.h"

namespace lockstep {

struct SgdOptions {
  double learning_rate = 0.1;
  double momentum = 0.9;
  /// L2 penalty, added to the gradient.
  double weight_decay = 0.0;
};

struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  /// Decoupled from the gradient (Loshchilov and Hutter, 2019).
  double weight_decay = 0.01;
};

/// One step of gradient descent with momentum, on the worker's stream:
///
///   velocity = momentum velocity + gradient + weight_decay master
///   master   = master - learning_rate velocity
///   value    = master, rounded to value's type
///
/// All are contiguous and of one shape; gradient, velocity and master are all float32 or all
/// float64. `value` may be `master` itself, or of a 16-bit type: then an element that differs from
/// what its master rounds to was written from outside since, and becomes the master first.
/// kInvalidArgument: tensors that do not go together.
absl::Status SgdUpdate(Worker& worker, const SgdOptions& options, const Tensor& gradient,
                       const Tensor& velocity, const Tensor& master, const Tensor& value);

/// One AdamW step, the `step`-th counting from 1. The tensors are as for SgdUpdate, with the
/// running means of the gradient and of its square in place of the velocity.
absl::Status AdamWUpdate(Worker& worker, const AdamWOptions& options, std::int64_t step,
                         const Tensor& gradient, const Tensor& mean, const Tensor& mean_square,
                         const Tensor& master, const Tensor& value);

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_UPDATE_H_
