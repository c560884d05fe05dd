#include "lockstep/layers/linear.h"

#include "lockstep/layers/linear_math.h"

namespace lockstep {

Linear::Linear(Worker& worker, Parameter weight, std::optional<Parameter> bias)
    : worker_(&worker), weight_(std::move(weight)), bias_(std::move(bias)) {}

absl::StatusOr<Linear> Linear::Create(Worker& worker, Options options) {
  const auto [in_features, out_features, has_bias, dtype, seed] = options;
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOptions(
      "Linear", {{"in_features", in_features}, {"out_features", out_features}}, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(
      Parameter weight, Parameter::Create(worker, "weight", {in_features, out_features}, dtype));
  std::optional<Parameter> bias;
  if (has_bias) {
    LOCKSTEP_ASSIGN_OR_RETURN(bias, Parameter::Create(worker, "bias", {out_features}, dtype));
  }
  LOCKSTEP_RETURN_IF_ERROR(internal::InitializeLinear(worker, seed, in_features, weight, bias));
  return Linear(worker, std::move(weight), std::move(bias));
}

absl::StatusOr<Tensor> Linear::Forward(const Tensor& x) {
  const std::int64_t in_features = weight_.full_shape()[0];
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand("Linear::Forward", "x", x,
                                                  {"in_features", in_features, in_features},
                                                  weight_.value().dtype()));
  return internal::TimesWeight(*worker_, x, weight_, bias());
}

absl::StatusOr<Tensor> Linear::Backward(const Tensor& x, const Tensor& grad_out,
                                        BackwardOptions options) {
  const std::int64_t in_features = weight_.full_shape()[0];
  const std::int64_t out_features = weight_.full_shape()[1];
  const DType dtype = weight_.value().dtype();
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(
      "Linear::Backward", "x", x, {"in_features", in_features, in_features}, dtype));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand("Linear::Backward", "grad_out", grad_out,
                                                  {"out_features", out_features, out_features},
                                                  dtype));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckTokens("Linear::Backward", grad_out, x));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x,
                            internal::TimesWeightTransposed(*worker_, grad_out, weight_));
  LOCKSTEP_RETURN_IF_ERROR(
      internal::ParameterGradients(*worker_, x, grad_out, weight_, bias_, options));
  return grad_x;
}

std::vector<Parameter*> Linear::parameters() {
  if (!bias_.has_value()) return {&weight_};
  return {&weight_, &*bias_};
}

}  // namespace lockstep
