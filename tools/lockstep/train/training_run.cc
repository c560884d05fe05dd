#include "lockstep/tools/lockstep/train/training_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <variant>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/layers/optimizer.h"
#include "lockstep/layers/parallel_mlp.h"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kClasses = 10;
constexpr std::int64_t kTestBatch = 500;

using Optimizer = std::variant<Sgd, AdamW>;

absl::StatusOr<Optimizer> MakeOptimizer(Worker& worker, std::vector<Parameter*> parameters,
                                        bool adamw) {
  if (adamw) return AdamW::Create(worker, std::move(parameters), {});
  return Sgd::Create(worker, std::move(parameters), {.momentum = 0.9});
}

absl::Status Step(Optimizer& optimizer, double learning_rate) {
  return std::visit(
      [learning_rate](auto& either) {
        either.options().learning_rate = learning_rate;
        return either.Step();
      },
      optimizer);
}

// Fisher-Yates, by hand because std::shuffle differs between standard libraries.
void Shuffle(std::vector<std::int64_t>& order, std::mt19937_64& random) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

// One rank's part of the run.
class RankTraining {
 public:
  RankTraining(const TrainOptions& options, const Dataset& train, const Dataset& test,
               const TrainingObserver& observer, Worker& worker, Communicator& comm,
               ParallelMlp mlp)
      : options_(options),
        train_(train),
        test_(test),
        observer_(observer),
        worker_(worker),
        comm_(comm),
        mlp_(std::move(mlp)) {}

  absl::Status Run(TrainingResult& result) {
    LOCKSTEP_ASSIGN_OR_RETURN(Optimizer optimizer,
                              MakeOptimizer(worker_, mlp_.parameters(), options_.adamw));
    std::vector<std::int64_t> order(static_cast<std::size_t>(train_.num_images));
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(options_.seed);
    for (int epoch = 1; epoch <= options_.epochs; ++epoch) {
      Shuffle(order, random);
      LOCKSTEP_ASSIGN_OR_RETURN(EpochResult report, RunEpoch(epoch, order, optimizer));
      LOCKSTEP_ASSIGN_OR_RETURN(report.accuracy, TestAccuracy());
      if (worker_.rank() != 0) continue;
      result.epochs.push_back(report);
      observer_.on_epoch(report);
    }
    return KeepWeights(result.weights);
  }

 private:
  absl::StatusOr<EpochResult> RunEpoch(int epoch, const std::vector<std::int64_t>& order,
                                       Optimizer& optimizer) {
    const Clock::time_point start = Clock::now();
    const CommunicatorStats before = comm_.stats();
    EpochResult report{.epoch = epoch};
    const std::int64_t images = train_.num_images;
    for (std::int64_t begin = 0; begin < images; begin += options_.batch) {
      const std::int64_t rows = std::min(options_.batch, images - begin);
      const absl::Span<const std::int64_t> picked(order.data() + begin,
                                                  static_cast<std::size_t>(rows));
      LOCKSTEP_ASSIGN_OR_RETURN(const double loss, TrainOn(picked));
      report.loss += loss * static_cast<double>(rows) / static_cast<double>(images);
      const double done =
          epoch - 1 + static_cast<double>(begin + rows) / static_cast<double>(images);
      report.learning_rate = options_.learning_rate * (1 - done / (options_.epochs + 0.01));
      LOCKSTEP_RETURN_IF_ERROR(Step(optimizer, report.learning_rate));
      if (worker_.rank() == 0)
        observer_.on_step(epoch, static_cast<double>(begin + rows) / static_cast<double>(images),
                          loss);
    }
    return Share(report, absl::FromChrono(Clock::now() - start), before);
  }

  // Where the time went, averaged over the ranks.
  absl::StatusOr<EpochResult> Share(EpochResult report, absl::Duration wall,
                                    const CommunicatorStats& before) {
    const CommunicatorStats after = comm_.stats();
    const absl::Duration inside = after.total_time - before.total_time;
    const absl::Duration waited = std::min(after.total_wait - before.total_wait, inside);
    double shares[] = {absl::FDivDuration(wall - inside, wall),
                       absl::FDivDuration(inside - waited, wall), absl::FDivDuration(waited, wall)};
    const Tensor on_host = Tensor::View(shares, {3}, DType::kFloat64);
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor tensor, worker_.Empty({3}, DType::kFloat64));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, on_host, tensor));
    LOCKSTEP_RETURN_IF_ERROR(comm_.AllReduce(tensor, tensor, ReduceOp::kAverage));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, tensor, on_host));
    report.computing = shares[0];
    report.reducing = shares[1];
    report.waiting = shares[2];
    report.samples_per_s = static_cast<double>(train_.num_images) / absl::ToDoubleSeconds(wall);
    return report;
  }

  // The images as a tensor of the network's type, and their labels, on the rank's device.
  absl::Status Load(const Dataset& data, absl::Span<const std::int64_t> picked, Tensor& x,
                    Tensor& labels) {
    const auto rows = static_cast<std::int64_t>(picked.size());
    const auto pixels = static_cast<std::size_t>(data.num_pixels);
    picked_images_.resize(picked.size() * pixels);
    picked_labels_.resize(picked.size());
    for (std::size_t row = 0; row < picked.size(); ++row) {
      const auto image = static_cast<std::size_t>(picked[row]);
      std::copy_n(data.images.data() + image * pixels, pixels,
                  picked_images_.data() + row * pixels);
      picked_labels_[row] = data.labels[image];
    }
    x = Tensor::View(picked_images_.data(), {rows, data.num_pixels}, DType::kFloat32);
    labels = Tensor::View(picked_labels_.data(), {rows}, DType::kInt32);
    LOCKSTEP_RETURN_IF_ERROR(Bring(options_.dtype, x));
    return Bring(DType::kInt32, labels);
  }

  // Replaces a tensor in host memory by one on the rank's device, unless it can be used as it is.
  absl::Status Bring(DType dtype, Tensor& tensor) {
    if (worker_.device().is_cpu() && tensor.dtype() == dtype) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor there, worker_.Empty(tensor.shape(), dtype));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, tensor, there));
    tensor = std::move(there);
    return absl::OkStatus();
  }

  absl::StatusOr<double> TrainOn(absl::Span<const std::int64_t> picked) {
    Tensor x;
    Tensor labels;
    LOCKSTEP_RETURN_IF_ERROR(Load(train_, picked, x, labels));
    ParallelMlp::Activations kept;
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor logits, mlp_.Forward(x, &kept));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor grad, worker_.Empty(logits.shape(), logits.dtype()));
    LOCKSTEP_ASSIGN_OR_RETURN(const CrossEntropyResult result,
                              SoftmaxCrossEntropy(worker_, logits, labels, grad));
    LOCKSTEP_RETURN_IF_ERROR(mlp_.Backward(x, kept, grad, {.accumulate = false}).status());
    return result.loss;
  }

  absl::StatusOr<double> TestAccuracy() {
    std::int64_t correct = 0;
    std::vector<std::int64_t> picked;
    for (std::int64_t begin = 0; begin < test_.num_images; begin += kTestBatch) {
      picked.resize(static_cast<std::size_t>(std::min(kTestBatch, test_.num_images - begin)));
      std::iota(picked.begin(), picked.end(), begin);
      Tensor x;
      Tensor labels;
      LOCKSTEP_RETURN_IF_ERROR(Load(test_, picked, x, labels));
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor logits, mlp_.Forward(x, nullptr));
      LOCKSTEP_ASSIGN_OR_RETURN(const CrossEntropyResult result,
                                SoftmaxCrossEntropy(worker_, logits, labels, Tensor()));
      correct += result.num_correct;
    }
    return static_cast<double>(correct) / static_cast<double>(test_.num_images);
  }

  absl::Status KeepWeights(std::vector<double>& weights) {
    for (const Parameter* parameter : mlp_.parameters()) {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor full, parameter->GatherFull(worker_, comm_));
      std::vector<double> exact(static_cast<std::size_t>(full.size()));
      LOCKSTEP_RETURN_IF_ERROR(
          Copy(worker_, full, Tensor::View(exact.data(), full.shape(), DType::kFloat64)));
      if (worker_.rank() == 0) weights.insert(weights.end(), exact.begin(), exact.end());
    }
    return absl::OkStatus();
  }

  const TrainOptions& options_;
  const Dataset& train_;
  const Dataset& test_;
  const TrainingObserver& observer_;
  Worker& worker_;
  Communicator& comm_;
  ParallelMlp mlp_;
  std::vector<float> picked_images_;
  std::vector<std::int32_t> picked_labels_;
};

}  // namespace

absl::StatusOr<TrainingResult> RunTraining(Executor& executor, const TrainOptions& options,
                                           const Dataset& train, const Dataset& test,
                                           const TrainingObserver& observer) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(executor));
  TrainingResult result;
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) -> absl::Status {
    Communicator& comm = barrier->communicator(worker.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(ParallelMlp mlp,
                              ParallelMlp::Create(worker, comm,
                                                  {.in_features = train.num_pixels,
                                                   .hidden_features = options.hidden,
                                                   .out_features = kClasses,
                                                   .activation = options.activation,
                                                   .dtype = options.dtype,
                                                   .seed = options.seed}));
    return RankTraining(options, train, test, observer, worker, comm, std::move(mlp)).Run(result);
  }));
  return result;
}

}  // namespace lockstep::tools
