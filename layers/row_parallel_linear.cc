#include "lockstep/layers/row_parallel_linear.h"

#include "lockstep/layers/linear_math.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep {

RowParallelLinear::RowParallelLinear(Worker& worker, Communicator& comm, Options options,
                                     Parameter weight, std::optional<Parameter> bias)
    : worker_(&worker),
      comm_(&comm),
      options_(options),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {}

absl::StatusOr<RowParallelLinear> RowParallelLinear::Create(Worker& worker, Communicator& comm,
                                                            Options options) {
  const std::int64_t in_features = options.in_features;
  const std::int64_t out_features = options.out_features;
  LOCKSTEP_RETURN_IF_ERROR(
      internal::CheckOptions("RowParallelLinear", in_features, out_features, options.dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(Parameter weight,
                            Parameter::Create(worker, comm, "weight", {in_features, out_features},
                                              /*shard_axis=*/0, options.dtype));
  std::optional<Parameter> bias;
  if (options.bias) {
    LOCKSTEP_ASSIGN_OR_RETURN(bias, Parameter::Create(worker, comm, "bias", {out_features},
                                                      Parameter::kReplicated, options.dtype));
  }
  LOCKSTEP_RETURN_IF_ERROR(
      internal::InitializeLinear(worker, options.seed, in_features, weight, bias));
  return RowParallelLinear(worker, comm, options, std::move(weight), std::move(bias));
}

absl::StatusOr<Tensor> RowParallelLinear::Forward(const Tensor& x) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, PartOf("RowParallelLinear::Forward", x));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, internal::TimesWeight(*worker_, part, weight_));
  LOCKSTEP_RETURN_IF_ERROR(comm_->AllReduce(y, y));
  if (bias_.has_value() && !options_.skip_bias_add) {
    LOCKSTEP_RETURN_IF_ERROR(AddBias(*worker_, bias_->value(), y));
  }
  return y;
}

absl::StatusOr<Tensor> RowParallelLinear::Backward(const Tensor& x, const Tensor& grad_out,
                                                   BackwardOptions options) {
  constexpr absl::string_view kCall = "RowParallelLinear::Backward";
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, PartOf(kCall, x));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(
      kCall, "grad_out", grad_out, {"out_features", options_.out_features, options_.out_features},
      options_.dtype));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckTokens(kCall, grad_out, x));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x,
                            internal::TimesWeightTransposed(*worker_, grad_out, weight_));
  if (!options_.input_is_parallel) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, worker_->Empty(x.shape(), options_.dtype));
    LOCKSTEP_RETURN_IF_ERROR(comm_->AllGather(grad_x, full, /*axis=*/1));
    grad_x = std::move(full);
  }
  LOCKSTEP_RETURN_IF_ERROR(
      internal::ParameterGradients(*worker_, part, grad_out, weight_, bias_, options));
  return grad_x;
}

absl::StatusOr<Tensor> RowParallelLinear::PartOf(absl::string_view call, const Tensor& x) const {
  const Shard shard = weight_.shard();
  const std::int64_t held = options_.input_is_parallel ? shard.length : options_.in_features;
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(
      call, "x", x, {"in_features", options_.in_features, held}, options_.dtype));
  if (options_.input_is_parallel) return x;
  return x.Slice(/*axis=*/1, shard.begin, shard.length);
}

std::vector<Parameter*> RowParallelLinear::parameters() {
  if (!bias_.has_value()) return {&weight_};
  return {&weight_, &*bias_};
}

}  // namespace lockstep
