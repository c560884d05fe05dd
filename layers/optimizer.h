// What turns gradients into new values.
#ifndef LOCKSTEP_LAYERS_OPTIMIZER_H_
#define LOCKSTEP_LAYERS_OPTIMIZER_H_

#include <cstdint>
#include <vector>

#include "lockstep/layers/parameter.h"
#include "lockstep/runtime/update.h"

namespace lockstep {

/// Stochastic gradient descent with momentum, on this rank's shards alone: no communication, because a shard's gradient
/// is complete where the shard is. 16-bit values are updated through a float32 copy that the optimizer keeps.
/// Holds on to `worker` and the parameters, which must outlive it.
class Sgd {
 public:
  static absl::StatusOr<Sgd> Create(Worker& worker, std::vector<Parameter*> parameters, SgdOptions options);

  /// Updates every value from its gradient, then zeroes the gradients.
  absl::Status Step();

  SgdOptions& options() { return options_; }

 private:
  struct State {
    Parameter* parameter;
    Tensor master;  // the value itself when that is float32
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
  static absl::StatusOr<AdamW> Create(Worker& worker, std::vector<Parameter*> parameters,
                                      AdamWOptions options);

  /// Updates every value from its gradient, then zeroes the gradients.
  absl::Status Step();

  AdamWOptions& options() { return options_; }

 private:
  struct State {
    Parameter* parameter;
    Tensor master;  // the value itself when that is float32
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
