#include "lockstep/tools/lockstep/bench/rank_mlp.h"

#include <algorithm>
#include <cmath>

#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/random.h"
#include "lockstep/tools/lockstep/bench/device_rounds.h"

namespace lockstep::tools {
namespace {

constexpr std::uint64_t kWeightSeed = 1;
constexpr std::uint64_t kInputSeed = 2;
constexpr std::uint64_t kGradientSeed = 3;

absl::StatusOr<ParallelMlp> MakeMlp(Worker& worker, Communicator& comm,
                                    const MlpBenchOptions& options) {
  return ParallelMlp::Create(worker, comm,
                             {.in_features = options.hidden,
                              .hidden_features = options.inner,
                              .out_features = options.hidden,
                              .bias = false,
                              .dtype = options.dtype,
                              .seed = kWeightSeed});
}

absl::StatusOr<Tensor> Uniform(Worker& worker, const Shape& shape, DType dtype,
                               std::uint64_t seed) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, worker.Empty(shape, dtype));
  LOCKSTEP_RETURN_IF_ERROR(FillUniformBlock(worker, seed, /*bound=*/1, /*first_row=*/0,
                                            /*first_column=*/0,
                                            /*full_columns=*/shape[1], tensor));
  return tensor;
}

absl::StatusOr<std::vector<double>> OnHost(Worker& worker, const Tensor& tensor) {
  std::vector<double> exact(static_cast<std::size_t>(tensor.size()));
  LOCKSTEP_RETURN_IF_ERROR(
      Copy(worker, tensor, Tensor::View(exact.data(), tensor.shape(), DType::kFloat64)));
  return exact;
}

}  // namespace

double RankMlp::Tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return 1.0 / 32;
    case DType::kFloat16:
      return 1.0 / 256;
    case DType::kFloat32:
      return 1e-5;
    default:
      return 1e-13;
  }
}

std::int64_t RankMlp::CountFar(DType dtype, const std::vector<double>& found,
                               const std::vector<double>& expected) {
  double largest = 0;
  for (const double value : expected) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  const double most = Tolerance(dtype) * largest;
  std::int64_t far = 0;
  // A NaN or an infinity, on either side, is as far as can be.
  for (std::size_t i = 0; i < expected.size(); ++i)
    far += !(std::abs(found[i] - expected[i]) <= most);
  return far;
}

absl::StatusOr<RankMlp> RankMlp::Create(Worker& worker, Communicator& comm,
                                        const MlpBenchOptions& options, std::int64_t rows) {
  const DType dtype = options.dtype;
  LOCKSTEP_ASSIGN_OR_RETURN(ParallelMlp mlp, MakeMlp(worker, comm, options));
  RankMlp rank(worker, comm, options, std::move(mlp));
  const Shape shape = {rows, options.hidden};
  LOCKSTEP_ASSIGN_OR_RETURN(rank.x_, Uniform(worker, shape, dtype, kInputSeed));
  LOCKSTEP_ASSIGN_OR_RETURN(rank.grad_out_, Uniform(worker, shape, dtype, kGradientSeed));
  const std::int64_t part = rank.mlp_.up().weight().shard().length;
  LOCKSTEP_ASSIGN_OR_RETURN(rank.inner_, worker.Empty({rows, part}, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(rank.out_, worker.Empty(shape, dtype));
  return rank;
}

absl::StatusOr<Tensor> RankMlp::Forward() { return mlp_.Forward(x_, nullptr); }

absl::StatusOr<Tensor> RankMlp::ForwardBackward() {
  ParallelMlp::Activations kept;
  LOCKSTEP_RETURN_IF_ERROR(mlp_.Forward(x_, &kept).status());
  return mlp_.Backward(x_, kept, grad_out_, {.accumulate = false});
}

absl::Status RankMlp::QueueProducts() {
  LOCKSTEP_RETURN_IF_ERROR(MatMul(*worker_, x_, mlp_.up().weight().value(), inner_));
  return MatMul(*worker_, inner_, mlp_.down().weight().value(), out_);
}

absl::Status RankMlp::QueuePartOfForward() {
  LOCKSTEP_RETURN_IF_ERROR(MatMul(*worker_, x_, mlp_.up().weight().value(), inner_));
  LOCKSTEP_RETURN_IF_ERROR(Activate(*worker_, Activation::kGelu, inner_, inner_));
  return MatMul(*worker_, inner_, mlp_.down().weight().value(), out_);
}

absl::StatusOr<Tensor> RankMlp::ForwardInSequence() {
  LOCKSTEP_RETURN_IF_ERROR(QueuePartOfForward());
  LOCKSTEP_RETURN_IF_ERROR(comm_->AllReduce(out_, out_));
  return out_;
}

absl::StatusOr<Tensor> RankMlp::ForwardThrough(NcclPeer& nccl) {
  LOCKSTEP_RETURN_IF_ERROR(QueuePartOfForward());
  LOCKSTEP_RETURN_IF_ERROR(
      nccl.Queue(*worker_, CollectiveKind::kAllReduce, ReduceOp::kSum, out_, out_));
  return out_;
}

absl::StatusOr<std::int64_t> RankMlp::CountWrong(NcclPeer* nccl) {
  const Stream stream = worker_->stream();
  LOCKSTEP_ASSIGN_OR_RETURN(auto alone,
                            CollectiveBarrier::Create(absl::Span<const Stream>(&stream, 1)));
  LOCKSTEP_ASSIGN_OR_RETURN(ParallelMlp whole,
                            MakeMlp(*worker_, alone->communicator(0), *options_));
  ParallelMlp::Activations kept;
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, whole.Forward(x_, &kept));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor grad_x, whole.Backward(x_, kept, grad_out_));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> right_y, OnHost(*worker_, y));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> right_grad_x, OnHost(*worker_, grad_x));

  std::int64_t wrong = 0;
  const auto count_far = [&](const absl::StatusOr<Tensor>& found,
                             const std::vector<double>& right) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(found.status());
    if (options_->spoil) options_->spoil(worker_->rank(), *found);
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> exact, OnHost(*worker_, *found));
    wrong += CountFar(found->dtype(), exact, right);
    return absl::OkStatus();
  };
  LOCKSTEP_RETURN_IF_ERROR(count_far(Forward(), right_y));
  LOCKSTEP_RETURN_IF_ERROR(count_far(ForwardInSequence(), right_y));
  LOCKSTEP_RETURN_IF_ERROR(count_far(ForwardBackward(), right_grad_x));
  // NCCL's kernels wait for each other without a meeting of the hosts before: let none of them
  // start while a rank still is in work of lockstep's.
  LOCKSTEP_RETURN_IF_ERROR(AwaitAll(*comm_));
  if (nccl != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor theirs, ForwardThrough(*nccl));
    LOCKSTEP_RETURN_IF_ERROR(AwaitAll(*comm_));
    LOCKSTEP_RETURN_IF_ERROR(count_far(theirs, right_y));
  }
  return wrong;
}

}  // namespace lockstep::tools
