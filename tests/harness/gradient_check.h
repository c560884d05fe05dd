// Gradients against finite differences, on one rank or many.
#ifndef LOCKSTEP_TESTS_HARNESS_GRADIENT_CHECK_H_
#define LOCKSTEP_TESTS_HARNESS_GRADIENT_CHECK_H_

#include "absl/functional/function_ref.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

struct GradientCheckOptions {
  /// Every rank holds the same x, rather than a part of its own.
  bool replicated = false;
  /// Elements that are tried: of x if replicated, else of every rank's part. All, if there are
  /// fewer.
  int num_elements = 16;
  /// How far an element is moved, up and down: about the cube root of the type's precision is best
  /// (1e-2 for float32, 1e-5 for float64).
  double step = 1e-2;
  /// Allowed difference, relative to the largest difference quotient found or 1.
  double tolerance = 1e-2;
};

/// OK if `gradient` is the derivative of the loss with respect to x, by central differences. `loss`
/// computes it from what x holds now, the same on every rank, and may call collectives: all ranks
/// call this alike, and it calls `loss` equally often on all of them. x, gradient: one floating
/// type and shape, contiguous; x is as before when this returns. kInternal: `what`, the rank, the
/// index, the gradient and the quotient.
absl::Status CheckGradient(Worker& worker, Communicator& comm, absl::string_view what,
                           const Tensor& x, const Tensor& gradient,
                           absl::FunctionRef<absl::StatusOr<double>()> loss,
                           GradientCheckOptions options = {});

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_GRADIENT_CHECK_H_
