// Optimizers: from gradients to new values.
#ifndef LOCKSTEP_LAYERS_OPTIMIZER_H_
#define LOCKSTEP_LAYERS_OPTIMIZER_H_

#include <cstdint>
#include <vector>

#include "lockstep/layers/parameter.h"
#include "lockstep/runtime/update.h"

namespace lockstep {

/// Stochastic gradient descent with momentum, on this rank's shards alone: no communication,
/// because a shard's gradient is complete where the shard is. The options must be the same on every
/// rank, at every step, or replicated parameters drift apart. 16-bit values are updated through a
/// float32 copy that the optimizer keeps, so that steps too small for the type add up. The next
/// Step() takes over every element that was written since (loaded, drawn, filled). The velocity
/// stays; for a fresh start make a new optimizer.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Sgd sgd, Sgd::Create(worker, mlp.parameters(), options));
///   for (...) {
///     ...   // one or more Backward passes
///     LOCKSTEP_RETURN_IF_ERROR(sgd.Step());
///   }
///
/// Keeps a reference to `worker`, which must outlive it, and shares the parameters' memory, so that
/// the layer may be moved. Used by the rank's thread alone.
class Sgd {
 public:
  /// Allocates all it will need. kInvalidArgument: a null parameter, one listed twice, or an option
  /// out of range.
  static absl::StatusOr<Sgd> Create(Worker& worker, const std::vector<Parameter*>& parameters,
                                    SgdOptions options);

  /// Updates every value from its gradient, then zeroes the gradient. On a GPU it returns before
  /// that is done.
  absl::Status Step();

  /// May be changed between steps, as a schedule does.
  SgdOptions& options() { return options_; }

 private:
  struct State {
    Parameter parameter;
    Tensor master;  // the value itself unless that is 16-bit
    Tensor velocity;
  };
  Sgd(Worker& worker, SgdOptions options, std::vector<State> states);

  Worker* worker_;
  SgdOptions options_;
  std::vector<State> states_;
};

/// AdamW (Loshchilov and Hutter, 2019), otherwise like Sgd.
class AdamW {
 public:
  static absl::StatusOr<AdamW> Create(Worker& worker, const std::vector<Parameter*>& parameters,
                                      AdamWOptions options);

  /// Updates every value from its gradient, then zeroes the gradient.
  absl::Status Step();

  AdamWOptions& options() { return options_; }

 private:
  struct State {
    Parameter parameter;
    Tensor master;  // the value itself unless that is 16-bit
    Tensor mean;
    Tensor mean_square;
  };
  AdamW(Worker& worker, AdamWOptions options, std::vector<State> states);

  Worker* worker_;
  AdamWOptions options_;
  std::int64_t step_ = 0;
  std::vector<State> states_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_OPTIMIZER_H_
