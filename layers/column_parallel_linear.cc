#include "lockstep/layers/column_parallel_linear.h"

#include "lockstep/layers/linear_math.h"

namespace lockstep {

ColumnParallelLinear::ColumnParallelLinear(Worker& worker, Communicator& comm, Options options,
                                           int multiprocessors, Parameter weight,
                                           std::optional<Parameter> bias)
    : worker_(&worker),
      comm_(&comm),
      options_(options),
      multiprocessors_(multiprocessors),
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
  LOCKSTEP_ASSIGN_OR_RETURN(const int multiprocessors,
                            internal::LeastMultiprocessors(worker, comm));
  return internal::Alone(comm, [&] { return Make(worker, comm, options, multiprocessors); });
}

absl::StatusOr<ColumnParallelLinear> ColumnParallelLinear::Make(Worker& worker, Communicator& comm,
                                                                Options options,
                                                                int multiprocessors) {
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
  return ColumnParallelLinear(worker, comm, options, multiprocessors, std::move(weight),
                              std::move(bias));
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
  if (absl::Status done = SumAndGradients(x, part, grad_x, options); !done.ok()) {
    overlaps_ = {};  // on all ranks, or some would know what others do not
    return done;
  }
  return grad_x;
}

absl::Status ColumnParallelLinear::SumAndGradients(const Tensor& x, const Tensor& grad_out,
                                                   const Tensor& grad_x, BackwardOptions options) {
  LOCKSTEP_RETURN_IF_ERROR(ChooseOverlap(x, grad_out, grad_x, options));
  const OverlapChoice way = overlaps_.Find(WavesOf(x.extent(0)));
  LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum, StartSum(grad_x, grad_x, way));
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&] {
    return internal::ParameterGradients(*worker_, x, grad_out, weight_, bias_, options,
                                        Beside(way, x));
  }));
  return sum.Wait();
}

std::int64_t ColumnParallelLinear::WavesOf(std::int64_t tokens) const {
  // Only where the product of the weight's gradient fills the GPU by itself.
  const std::int64_t columns = options_.out_features / comm_->world_size();
  if (options_.in_features < internal::RowsPerWave(multiprocessors_, columns)) return 0;
  return internal::WavesToOverlap(multiprocessors_, options_.dtype, tokens, options_.in_features);
}

absl::Status ColumnParallelLinear::ChooseOverlap(const Tensor& x, const Tensor& grad_out,
                                                 const Tensor& grad_x, BackwardOptions options) {
  const std::int64_t waves = WavesOf(x.extent(0));
  if (waves == 0 || overlaps_.Knows(waves) || worker_->stream().is_capturing()) {
    return absl::OkStatus();
  }
  // What is timed leaves the gradients alone.
  const auto like = [&](const Tensor& tensor) {
    return internal::OutOfMemoryAsStatus(
        [&] { return worker_->Empty(tensor.shape(), tensor.dtype()); });
  };
  const absl::StatusOr<Tensor> gradient = like(weight_.gradient());
  const absl::StatusOr<Tensor> sum = like(grad_x);
  double lacks_memory = gradient.ok() && sum.ok() ? 0 : 1;
  LOCKSTEP_RETURN_IF_ERROR(
      internal::MaxOverRanks(*worker_, *comm_, absl::MakeSpan(&lacks_memory, 1)));
  if (lacks_memory > 0) {
    overlaps_.Remember(waves, {});
    return absl::OkStatus();
  }
  const OverlapChoice ways[] = {{}, {.multiprocessors = internal::kBesideProduct}};
  return overlaps_.Measure(
      *worker_, *comm_, waves, ways, [&](const OverlapChoice& way) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective pending, StartSum(grad_x, *sum, way));
        LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&] {
          MatMulOptions product = Beside(way, x);
          product.transpose_a = true;
          product.accumulate = options.accumulate;
          return MatMul(*worker_, x, grad_out, *gradient, product);
        }));
        return pending.Wait();
      });
}

MatMulOptions ColumnParallelLinear::Beside(const OverlapChoice& way, const Tensor& x) const {
  return {.max_multiprocessors = internal::LeftBeside(way, multiprocessors_),
          .batch_invariant = WavesOf(x.extent(0)) > 0};
}

absl::StatusOr<PendingCollective> ColumnParallelLinear::StartSum(const Tensor& in,
                                                                 const Tensor& out,
                                                                 const OverlapChoice& way) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      PendingCollective sum,
      comm_->AllReduceAsync(in, out, ReduceOp::kSum, {.max_multiprocessors = way.multiprocessors}));
  const bool in_sequence = way.multiprocessors == 0 && WavesOf(in.extent(0)) > 0;
  if (in_sequence) LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
  return sum;
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
