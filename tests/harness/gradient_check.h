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
  /// How many elements are tried, at least 1: of x if replicated, else of every rank's part. Spread
  /// evenly from the first one on; all, if there are fewer.
  int num_elements = 16;
  /// How far an element is moved up and down, above 0: about the cube root of the type's precision
  /// is best (1e-2 for float32, 1e-5 for float64).
  double step = 1e-2;
  /// Allowed difference, relative to the largest difference quotient that this rank found or 1;
  /// between 0 and 1.
  double tolerance = 1e-2;
};

/// OK if `gradient` is the derivative of the loss with respect to x, by central differences. `loss`
/// computes the loss, the same on every rank, from what x holds at that moment. It may call
/// collectives: all ranks call CheckGradient, which calls `loss` equally often on all of them.
/// x, gradient: of one floating type and shape, contiguous, on the worker's device. Whatever this
/// returns, x is as before, bit for bit. OK if x has no elements.
///
/// A collective: every rank returns the same, except that an error of `loss` is returned by its
/// rank alone, at once. kInternal: `what`, the rank, the index, the gradient and the quotient; or
/// why there is no quotient (the loss is not finite, or the step is lost in x's type).
/// kInvalidArgument, before `loss` is called: the first rank whose tensors or options are wrong, or
/// what differs between the ranks.
absl::Status CheckGradient(Worker& worker, Communicator& comm, absl::string_view what,
                           const Tensor& x, const Tensor& gradient,
                           absl::FunctionRef<absl::StatusOr<double>()> loss,
                           GradientCheckOptions options = {});

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_GRADIENT_CHECK_H_
