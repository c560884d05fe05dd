// What Linear, ColumnParallelLinear and RowParallelLinear share: checks, starting values, and the
// math of one rank.
#ifndef LOCKSTEP_LAYERS_LINEAR_MATH_H_
#define LOCKSTEP_LAYERS_LINEAR_MATH_H_

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "absl/strings/string_view.h"
#include "lockstep/layers/parameter.h"
#include "lockstep/layers/peers.h"
#include "lockstep/runtime/matmul.h"

namespace lockstep::internal {

/// A feature axis as a message names it: "in_features", its full extent, and how much of it this
/// rank's tensor holds.
struct Features {
  absl::string_view name;
  std::int64_t full;
  std::int64_t held;
};

/// A size among a layer's options, by its name there.
struct Size {
  absl::string_view name;
  std::int64_t value;
};

/// kInvalidArgument, in the name of `layer`: a negative size, or a type that is not floating.
absl::Status CheckOptions(absl::string_view layer, std::initializer_list<Size> sizes, DType dtype);

/// Options as CompareAcrossRanks takes them.
SharedOption Shared(absl::string_view name, std::int64_t size);
SharedOption Shared(absl::string_view name, bool flag);
SharedOption Shared(absl::string_view name, DType dtype);
SharedOption SharedSeed(std::uint64_t seed);

/// kInvalidArgument unless `tensor` is [tokens, features.held] of `dtype`.
/// `call` and `which` begin the message: "Linear::Forward", "x".
absl::Status CheckOperand(absl::string_view call, absl::string_view which, const Tensor& tensor,
                          const Features& features, DType dtype);
/// kInvalidArgument unless both, already checked, have the same number of tokens.
absl::Status CheckTokens(absl::string_view call, const Tensor& grad_out, const Tensor& x);

/// Draws weight and bias uniformly within 1/sqrt(in_features), zero without inputs, from two
/// sequences of `seed`.
absl::Status InitializeLinear(Worker& worker, std::uint64_t seed, std::int64_t in_features,
                              const Parameter& weight, const std::optional<Parameter>& bias);
/// The seed of the index-th independent sequence that `seed` stands for; none of them is `seed`'s
/// own.
std::uint64_t DeriveSeed(std::uint64_t seed, std::uint64_t index);

/// x W, or x W + b rounded once, new.  x: [tokens, rows of W]; b: [columns of W].
absl::StatusOr<Tensor> TimesWeight(Worker& worker, const Tensor& x, const Parameter& weight,
                                   const Parameter* bias = nullptr);
/// grad_out W^T, new.  grad_out: [tokens, columns of W].
absl::StatusOr<Tensor> TimesWeightTransposed(Worker& worker, const Tensor& grad_out,
                                             const Parameter& weight);
/// Adds x^T grad_out to the weight's gradient and the column sums of grad_out to the bias's, or
/// writes them there (see BackwardOptions). `how`: what else there is to say of the product.
absl::Status ParameterGradients(Worker& worker, const Tensor& x, const Tensor& grad_out,
                                const Parameter& weight, const std::optional<Parameter>& bias,
                                BackwardOptions options, MatMulOptions how = {});

}  // namespace lockstep::internal

#endif  // LOCKSTEP_LAYERS_LINEAR_MATH_H_
