#include "lockstep/layers/row_parallel_linear.h"

#include "lockstep/layers/linear_math.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"

namespace lockstep {

RowParallelLinear::RowParallelLinear(Worker& worker, Communicator& comm, Options options,
                                     int multiprocessors, Parameter weight,
                                     std::optional<Parameter> bias)
    : worker_(&worker),
      comm_(&comm),
      options_(options),
      multiprocessors_(multiprocessors),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {}

absl::StatusOr<RowParallelLinear> RowParallelLinear::Create(Worker& worker, Communicator& comm,
                                                            Options options) {
  using internal::Shared;
  constexpr absl::string_view kName = "RowParallelLinear";
  LOCKSTEP_RETURN_IF_ERROR(comm.Fail(internal::CheckOptions(
      kName, {{"in_features", options.in_features}, {"out_features", options.out_features}},
      options.dtype)));
  LOCKSTEP_RETURN_IF_ERROR(internal::CompareAcrossRanks(
      worker, comm, kName,
      {Shared("in_features", options.in_features), Shared("out_features", options.out_features),
       Shared("bias", options.bias), Shared("input_is_parallel", options.input_is_parallel),
       Shared("skip_bias_add", options.skip_bias_add), Shared("dtype", options.dtype),
       internal::SharedSeed(options.seed)}));
  LOCKSTEP_ASSIGN_OR_RETURN(const int multiprocessors,
                            internal::LeastMultiprocessors(worker, comm));
  return internal::Alone(comm, [&] { return Make(worker, comm, options, multiprocessors); });
}

absl::StatusOr<RowParallelLinear> RowParallelLinear::Make(Worker& worker, Communicator& comm,
                                                          Options options, int multiprocessors) {
  const auto create = [&](const char* name, const Shape& full_shape, int shard_axis) {
    return Parameter::CreateShard(worker, name, full_shape, shard_axis, options.dtype, comm.rank(),
                                  comm.world_size());
  };
  LOCKSTEP_ASSIGN_OR_RETURN(
      Parameter weight,
      create("weight", {options.in_features, options.out_features}, /*shard_axis=*/0));
  std::optional<Parameter> bias;
  if (options.bias) {
    LOCKSTEP_ASSIGN_OR_RETURN(bias, create("bias", {options.out_features}, Parameter::kReplicated));
  }
  LOCKSTEP_RETURN_IF_ERROR(
      internal::InitializeLinear(worker, options.seed, options.in_features, weight, bias));
  return RowParallelLinear(worker, comm, options, multiprocessors, std::move(weight),
                           std::move(bias));
}

absl::StatusOr<Tensor> RowParallelLinear::Forward(const Tensor& x) {
  Tensor part;
  Tensor y;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(part, PartOf("RowParallelLinear::Forward", x));
    LOCKSTEP_ASSIGN_OR_RETURN(y,
                              worker_->Empty({x.extent(0), options_.out_features}, options_.dtype));
    return absl::OkStatus();
  }));
  if (absl::Status summed = ChosenProductAndSum(part, y); !summed.ok()) {
    overlaps_ = {};  // on all ranks, or some would know what others do not
    return summed;
  }
  if (bias_.has_value() && !options_.skip_bias_add) {
    LOCKSTEP_RETURN_IF_ERROR(
        internal::Alone(*comm_, [&] { return AddBias(*worker_, bias_->value(), y); }));
  }
  return y;
}

std::int64_t RowParallelLinear::WavesOf(std::int64_t tokens) const {
  return internal::WavesToOverlap(multiprocessors_, options_.dtype, tokens, options_.out_features);
}

absl::Status RowParallelLinear::ChosenProductAndSum(const Tensor& x, const Tensor& y) {
  const std::int64_t waves = WavesOf(x.extent(0));
  if (waves > 0 && !overlaps_.Knows(waves) && !worker_->stream().is_capturing()) {
    const OverlapChoice ways[] = {
        {},
        {.multiprocessors = internal::kBesideProduct},
        {.multiprocessors = internal::kBesideProduct, .equal_parts = true},
    };
    LOCKSTEP_RETURN_IF_ERROR(
        overlaps_.Measure(*worker_, *comm_, waves, ways,
                          [&](const OverlapChoice& way) { return ProductAndSum(x, y, way); }));
  }
  return ProductAndSum(x, y, overlaps_.Find(waves));
}

absl::Status RowParallelLinear::ProductAndSum(const Tensor& x, const Tensor& y,
                                              const OverlapChoice& way) {
  const std::int64_t tokens = x.extent(0);
  std::vector<std::int64_t> parts = {tokens};
  if (way.multiprocessors > 0) {
    parts = internal::OverlapParts(
        tokens, internal::RowsPerWave(multiprocessors_, options_.out_features), way.equal_parts);
  }
  // Each part has the bits of the whole.
  MatMulOptions options = {.batch_invariant = WavesOf(tokens) > 0};
  std::vector<PendingCollective> sums;
  std::int64_t begin = 0;
  for (const std::int64_t part : parts) {
    Tensor y_part;
    LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x_part, x.Slice(/*axis=*/0, begin, part));
      LOCKSTEP_ASSIGN_OR_RETURN(y_part, y.Slice(/*axis=*/0, begin, part));
      return MatMul(*worker_, x_part, weight_.value(), y_part, options);
    }));
    begin += part;
    if (begin == tokens) return comm_->AllReduce(y_part, y_part);
    // The next part's product runs beside this part's sum.
    options.max_multiprocessors = internal::LeftBeside(way, multiprocessors_);
    LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum,
                              comm_->AllReduceAsync(y_part, y_part, ReduceOp::kSum,
                                                    {.max_multiprocessors = way.multiprocessors}));
    sums.push_back(std::move(sum));
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> RowParallelLinear::Backward(const Tensor& x, const Tensor& grad_out,
                                                   BackwardOptions options) {
  constexpr absl::string_view kCall = "RowParallelLinear::Backward";
  Tensor part;
  Tensor grad_part;
  Tensor grad_x;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(part, PartOf(kCall, x));
    LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(
        kCall, "grad_out", grad_out, {"out_features", options_.out_features, options_.out_features},
        options_.dtype));
    LOCKSTEP_RETURN_IF_ERROR(internal::CheckTokens(kCall, grad_out, x));
    LOCKSTEP_ASSIGN_OR_RETURN(grad_part,
                              internal::TimesWeightTransposed(*worker_, grad_out, weight_));
    if (options_.input_is_parallel) {
      grad_x = grad_part;
      return absl::OkStatus();
    }
    LOCKSTEP_ASSIGN_OR_RETURN(grad_x, worker_->Empty(x.shape(), options_.dtype));
    return absl::OkStatus();
  }));
  if (!options_.input_is_parallel) {
    LOCKSTEP_RETURN_IF_ERROR(comm_->AllGather(grad_part, grad_x, /*axis=*/1));
  }
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&] {
    return internal::ParameterGradients(*worker_, part, grad_out, weight_, bias_, options);
  }));
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
