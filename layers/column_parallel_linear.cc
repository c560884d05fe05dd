#include "lockstep/layers/column_parallel_linear.h"

#include "lockstep/layers/linear_math.h"

namespace lockstep {

ColumnParallelLinear::ColumnParallelLinear(Worker& worker, Communicator& comm, Options options,
                                           Parameter weight, std::optional<Parameter> bias)
    : worker_(&worker),
      comm_(&comm),
      options_(options),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {}

absl::StatusOr<ColumnParallelLinear> ColumnParallelLinear::Create(Worker& worker,
                                                                  Communicator& comm,
                                                                  Options options) {
  using internal::Shared;
  constexpr absl::string_view kName = "ColumnParallelLinear";
  LOCKSTEP_RETURN_IF_ERROR(comm.Fail(internal::CheckOptions(
      kName, {{"in_features", options.in_features}, {"out_features", options.out_features}},
      options.dtype)));
  LOCKSTEP_RETURN_IF_ERROR(internal::CompareAcrossRanks(
      worker, comm, kName,
      {Shared("in_features", options.in_features), Shared("out_features", options.out_features),
       Shared("bias", options.bias), Shared("gather_output", options.gather_output),
       Shared("skip_bias_add", options.skip_bias_add), Shared("dtype", options.dtype),
       internal::SharedSeed(options.seed)}));
  return internal::Alone(comm, [&] { return Make(worker, comm, options); });
}

absl::StatusOr<ColumnParallelLinear> ColumnParallelLinear::Make(Worker& worker, Communicator& comm,
                                                                Options options) {
  const auto create = [&](const char* name, const Shape& full_shape, int shard_axis) {
    return Parameter::CreateShard(worker, name, full_shape, shard_axis, options.dtype, comm.rank(),
                                  comm.world_size());
  };
  LOCKSTEP_ASSIGN_OR_RETURN(
      Parameter weight,
      create("weight", {options.in_features, options.out_features}, /*shard_axis=*/1));
  std::optional<Parameter> bias;
  if (options.bias) {
    LOCKSTEP_ASSIGN_OR_RETURN(bias, create("bias", {options.out_features}, /*shard_axis=*/0));
  }
  LOCKSTEP_RETURN_IF_ERROR(
      internal::InitializeLinear(worker, options.seed, options.in_features, weight, bias));
  return ColumnParallelLinear(worker, comm, options, std::move(weight), std::move(bias));
}

absl::StatusOr<Tensor> ColumnParallelLinear::Forward(const Tensor& x) {
  Tensor part;
  Tensor full;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(CheckInput("ColumnParallelLinear::Forward", x));
    LOCKSTEP_ASSIGN_OR_RETURN(
        part,
        internal::TimesWeight(*worker_, x, weight_, options_.skip_bias_add ? nullptr : bias()));
    if (!options_.gather_output) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(full,
                              worker_->Empty({x.extent(0), options_.out_features}, options_.dtype));
    return absl::OkStatus();
  }));
  if (!options_.gather_output) return part;
  LOCKSTEP_RETURN_IF_ERROR(comm_->AllGather(part, full, /*axis=*/1));
  return full;
}

absl::StatusOr<Tensor> ColumnParallelLinear::Backward(const Tensor& x, const Tensor& grad_out,
                                                      BackwardOptions options) {
  constexpr absl::string_view kCall = "ColumnParallelLinear::Backward";
  Tensor part = grad_out;
  Tensor grad_x;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(CheckInput(kCall, x));
    const Shard shard = weight_.shard();
    const std::int64_t held = options_.gather_output ? options_.out_features : shard.length;
    LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(kCall, "grad_out", grad_out,
                                                    {"out_features", options_.out_features, held},
                                                    options_.dtype));
    LOCKSTEP_RETURN_IF_ERROR(internal::CheckTokens(kCall, grad_out, x));
    if (options_.gather_output) {
      LOCKSTEP_ASSIGN_OR_RETURN(part, grad_out.Slice(/*axis=*/1, shard.begin, shard.length));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(grad_x, internal::TimesWeightTransposed(*worker_, part, weight_));
    return absl::OkStatus();
  }));
  // Beside the products of the weight's gradient, which do not need it.
  LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum, comm_->AllReduceAsync(grad_x, grad_x));
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&] {
    return internal::ParameterGradients(*worker_, x, part, weight_, bias_, options);
  }));
  LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
  return grad_x;
}

absl::Status ColumnParallelLinear::CheckInput(absl::string_view call, const Tensor& x) const {
  return internal::CheckOperand(
      call, "x", x, {"in_features", options_.in_features, options_.in_features}, options_.dtype);
}

std::vector<Parameter*> ColumnParallelLinear::parameters() {
  if (!bias_.has_value()) return {&weight_};
  return {&weight_, &*bias_};
}

}  // namespace lockstep
