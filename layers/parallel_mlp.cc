#include "lockstep/layers/parallel_mlp.h"

#include "lockstep/layers/linear_math.h"

namespace lockstep {
namespace {

absl::Status CheckKept(absl::string_view which, const Tensor& kept, const Parameter& up_weight,
                       const Tensor& grad_out) {
  constexpr absl::string_view kCall = "ParallelMlp::Backward";
  const internal::Features hidden{"hidden_features", up_weight.full_shape()[1],
                                  up_weight.shard().length};
  LOCKSTEP_RETURN_IF_ERROR(
      internal::CheckOperand(kCall, which, kept, hidden, up_weight.value().dtype()));
  return internal::CheckTokens(kCall, grad_out, kept);
}

}  // namespace

ParallelMlp::ParallelMlp(Worker& worker, Communicator& comm, Activation activation,
                         ColumnParallelLinear up, RowParallelLinear down)
    : worker_(&worker),
      comm_(&comm),
      activation_(activation),
      up_(std::move(up)),
      down_(std::move(down)) {}

absl::StatusOr<ParallelMlp> ParallelMlp::Create(Worker& worker, Communicator& comm,
                                                Options options) {
  using internal::Shared;
  constexpr absl::string_view kName = "ParallelMlp";
  LOCKSTEP_RETURN_IF_ERROR(
      comm.Fail(internal::CheckOptions(kName,
                                       {{"in_features", options.in_features},
                                        {"hidden_features", options.hidden_features},
                                        {"out_features", options.out_features}},
                                       options.dtype)));
  LOCKSTEP_RETURN_IF_ERROR(internal::CompareAcrossRanks(
      worker, comm, kName,
      {Shared("in_features", options.in_features),
       Shared("hidden_features", options.hidden_features),
       Shared("out_features", options.out_features),
       {"activation", options.activation == Activation::kRelu ? "relu" : "gelu"},
       Shared("bias", options.bias),
       Shared("dtype", options.dtype),
       internal::SharedSeed(options.seed)}));
  LOCKSTEP_ASSIGN_OR_RETURN(const int multiprocessors,
                            internal::LeastMultiprocessors(worker, comm));
  return internal::Alone(comm, [&] { return Make(worker, comm, options, multiprocessors); });
}

absl::StatusOr<ParallelMlp> ParallelMlp::Make(Worker& worker, Communicator& comm, Options options,
                                              int multiprocessors) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto up, ColumnParallelLinear::Make(worker, comm,
                                          {.in_features = options.in_features,
                                           .out_features = options.hidden_features,
                                           .bias = options.bias,
                                           .dtype = options.dtype,
                                           .seed = internal::DeriveSeed(options.seed, 1)},
                                          multiprocessors));
  LOCKSTEP_ASSIGN_OR_RETURN(auto down,
                            RowParallelLinear::Make(worker, comm,
                                                    {.in_features = options.hidden_features,
                                                     .out_features = options.out_features,
                                                     .bias = options.bias,
                                                     .dtype = options.dtype,
                                                     .seed = internal::DeriveSeed(options.seed, 2)},
                                                    multiprocessors));
  return ParallelMlp(worker, comm, options.activation, std::move(up), std::move(down));
}

absl::StatusOr<Tensor> ParallelMlp::Forward(const Tensor& x, Activations* kept) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor before, up_.Forward(x));
  Tensor after = before;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&]() -> absl::Status {
    if (kept != nullptr) {
      LOCKSTEP_ASSIGN_OR_RETURN(after, worker_->Empty(before.shape(), before.dtype()));
    }
    return Activate(*worker_, activation_, before, after);
  }));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, down_.Forward(after));
  if (kept != nullptr) *kept = {.before = std::move(before), .after = std::move(after)};
  return y;
}

absl::StatusOr<Tensor> ParallelMlp::Backward(const Tensor& x, const Activations& kept,
                                             const Tensor& grad_out, BackwardOptions options) {
  // All of it first: an error must not leave the gradients of one layer added and of the other not.
  LOCKSTEP_RETURN_IF_ERROR(comm_->Fail(CheckBackward(x, kept, grad_out)));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_hidden, down_.Backward(kept.after, grad_out, options));
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(*comm_, [&] {
    return ActivateBackward(*worker_, activation_, kept.before, grad_hidden, grad_hidden);
  }));
  return up_.Backward(x, grad_hidden, options);
}

absl::Status ParallelMlp::CheckBackward(const Tensor& x, const Activations& kept,
                                        const Tensor& grad_out) const {
  constexpr absl::string_view kCall = "ParallelMlp::Backward";
  const Parameter& up = up_.weight();
  const Shape& up_shape = up.full_shape();
  const Shape& down_shape = down_.weight().full_shape();
  const DType dtype = up.value().dtype();
  LOCKSTEP_RETURN_IF_ERROR(
      internal::CheckOperand(kCall, "x", x, {"in_features", up_shape[0], up_shape[0]}, dtype));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckOperand(
      kCall, "grad_out", grad_out, {"out_features", down_shape[1], down_shape[1]}, dtype));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckTokens(kCall, grad_out, x));
  LOCKSTEP_RETURN_IF_ERROR(CheckKept("kept.before", kept.before, up, grad_out));
  return CheckKept("kept.after", kept.after, up, grad_out);
}

std::vector<Parameter*> ParallelMlp::parameters() {
  std::vector<Parameter*> all = up_.parameters();
  for (Parameter* parameter : down_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace lockstep
