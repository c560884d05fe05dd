// The unsharded linear layer: what the parallel ones must equal.
#ifndef LOCKSTEP_LAYERS_LINEAR_H_
#define LOCKSTEP_LAYERS_LINEAR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "lockstep/layers/parameter.h"

namespace lockstep {

/// Y = X W + b on one device, without communication. weight: [in_features, out_features]; PyTorch's
/// nn.Linear stores [out_features, in_features]: load that as Orientation::kOutIn.
/// Weights and biases start uniform in +-1/sqrt(in_features), both drawn from `seed`: a parallel
/// layer with that seed has the same full values. Keeps a reference to `worker`, which must outlive
/// it. Used by the rank's thread alone. On a GPU the calls return before their work is done.
class Linear {
 public:
  struct Options {
    std::int64_t in_features = 0;
    std::int64_t out_features = 0;
    bool bias = true;
    DType dtype = DType::kFloat32;
    std::uint64_t seed = 0;
  };

  /// kInvalidArgument: negative sizes, or a type that is not floating.
  static absl::StatusOr<Linear> Create(Worker& worker, Options options);

  /// x: [tokens, in_features] -> [tokens, out_features].
  absl::StatusOr<Tensor> Forward(const Tensor& x);
  /// Takes the x that was given to Forward and the gradient of its result, adds to the parameters'
  /// gradients (see BackwardOptions) and returns the gradient of x.
  /// grad_out: [tokens, out_features] -> [tokens, in_features].
  absl::StatusOr<Tensor> Backward(const Tensor& x, const Tensor& grad_out,
                                  BackwardOptions options = {});

  /// [in_features, out_features].
  Parameter& weight() { return weight_; }
  /// [out_features]; null without a bias.
  Parameter* bias() { return bias_.has_value() ? &*bias_ : nullptr; }
  /// All of them, for an optimizer.
  std::vector<Parameter*> parameters();

 private:
  Linear(Worker& worker, Parameter weight, std::optional<Parameter> bias);

  Worker* worker_;
  Parameter weight_;
  std::optional<Parameter> bias_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_LINEAR_H_
