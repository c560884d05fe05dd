#include "lockstep/layers/parallel_mlp.h"

#include "lockstep/layers/optimizer.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kGelu};

Inputs InputsOf(const ParallelMlp::Options& options, std::int64_t tokens) {
  return Inputs::Uniform(options.dtype, tokens,
                         {options.in_features, options.hidden_features, options.out_features},
                         options.bias);
}

// A few steps of training, and then the full values on every rank.
template <typename Optimizer, typename OptimizerOptions>
absl::StatusOr<std::vector<std::vector<Array>>> Train(Ranks& group, const LayerMaker& make,
                                                      const Inputs& inputs,
                                                      const OptimizerOptions& options) {
  std::vector<std::vector<Array>> trained(static_cast<std::size_t>(group.world_size()));
  const absl::Status status = group.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, make(worker, comm));
    for (std::size_t i = 0; i < layer.parameters.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, ToTensor(worker, inputs.parameters[i], inputs.dtype));
      LOCKSTEP_RETURN_IF_ERROR(layer.parameters[i]->LoadFull(worker, full));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(auto optimizer, Optimizer::Create(worker, layer.parameters, options));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, ToTensor(worker, inputs.x, inputs.dtype));
    for (int step = 0; step < 5; ++step) {
      // The gradient of half the sum of squares: training towards 0.
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, layer.forward(x));
      LOCKSTEP_RETURN_IF_ERROR(layer.backward(x, y, {}).status());
      LOCKSTEP_RETURN_IF_ERROR(optimizer.Step());
    }
    for (const Parameter* parameter : layer.parameters) {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter->GatherFull(worker, comm));
      LOCKSTEP_ASSIGN_OR_RETURN(trained[worker.rank()].emplace_back(), ToArray(worker, full));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return trained;
}

template <typename Optimizer, typename OptimizerOptions>
void RequireTrainsLikeUnsharded(const OptimizerOptions& options) {
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    CAPTURE(group->world_size(), Name(dtype).data());
    const ParallelMlp::Options mlp{
        .in_features = 4, .hidden_features = 6, .out_features = 3, .dtype = dtype};
    const Inputs inputs = InputsOf(mlp, 4);
    const auto whole = Train<Optimizer>(*alone, MakeUnsharded(mlp), inputs, options);
    const auto split = Train<Optimizer>(*group, Make(mlp), inputs, options);
    REQUIRE_OK(whole);
    REQUIRE_OK(split);
    for (const std::vector<Array>& values : *split) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        REQUIRE(Distance(values[i], whole->front()[i]) <= 4 * Tolerance(dtype));
        REQUIRE(SameBits(values[i], split->front()[i]));
        REQUIRE_FALSE(SameBits(values[i], inputs.parameters[i]));
      }
    }
  }
}

}  // namespace

TEST_CASE("A parallel MLP equals two unsharded layers, bit-equal on every rank", "[gpu]") {
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    for (const Activation activation : kActivations) {
      for (const bool bias : {true, false}) {
        for (const std::int64_t hidden : {16, 13, 3, 1, 0}) {
          CAPTURE(group->world_size(), Name(dtype).data(), bias, hidden);
          const ParallelMlp::Options options{.in_features = 5,
                                             .hidden_features = hidden,
                                             .out_features = 3,
                                             .activation = activation,
                                             .bias = bias,
                                             .dtype = dtype};
          const Inputs inputs = InputsOf(options, 4);
          const auto whole = RunPasses(*alone, MakeUnsharded(options), inputs);
          const auto split = RunPasses(*group, Make(options), inputs);
          REQUIRE_OK(whole);
          REQUIRE_OK(split);
          const Pass& expected = whole->front();
          for (const Pass& pass : *split) {
            REQUIRE(Distance(pass.y, expected.y) <= Tolerance(dtype));
            REQUIRE(Distance(pass.grad_x, expected.grad_x) <= Tolerance(dtype));
            REQUIRE(SameBits(pass.y, split->front().y));
            REQUIRE(SameBits(pass.grad_x, split->front().grad_x));
            for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
              REQUIRE(Distance(pass.gradients[i], expected.gradients[i]) <= Tolerance(dtype));
              REQUIRE(SameBits(pass.gradients[i], split->front().gradients[i]));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("A parallel MLP's gradients are its derivatives, with either activation", "[gpu]") {
  auto group = CreateRanks(GENERATE(1, 2, 3, 8));
  REQUIRE_OK(group);
  for (const Activation activation : kActivations) {
    const ParallelMlp::Options options{.in_features = 3,
                                       .hidden_features = 5,
                                       .out_features = 2,
                                       .activation = activation,
                                       .dtype = DType::kFloat64};
    const Inputs inputs = InputsOf(options, 2);
    const auto passes = RunPasses(*group, Make(options), inputs);
    REQUIRE_OK(passes);
    Pass differences;
    REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, Make(options)(worker, comm));
      LOCKSTEP_ASSIGN_OR_RETURN(Pass pass, DifferencePass(worker, layer, inputs));
      if (worker.rank() == 0) differences = pass;
      return absl::OkStatus();
    }));
    REQUIRE(Distance(passes->front().grad_x, differences.grad_x) < 1e-8);
    for (std::size_t i = 0; i < 4; ++i) {
      REQUIRE(Distance(passes->front().gradients[i], differences.gradients[i]) < 1e-8);
    }
  }
}

TEST_CASE("Forward gives the same bits whether or not it keeps the activations", "[gpu]") {
  auto group = CreateRanks(3);
  REQUIRE_OK(group);
  std::vector<Array> kept_y(3);
  std::vector<Array> lone_y(3);
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    const auto rank = static_cast<std::size_t>(worker.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto mlp, ParallelMlp::Create(worker, comm,
                                      {.in_features = 4, .hidden_features = 7, .out_features = 4}));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x,
                              ToTensor(worker, Array::Uniform({3, 4}, 1), DType::kFloat32));
    ParallelMlp::Activations kept;
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, mlp.Forward(x, &kept));
    LOCKSTEP_ASSIGN_OR_RETURN(kept_y[rank], ToArray(worker, y));
    LOCKSTEP_ASSIGN_OR_RETURN(y, mlp.Forward(x, nullptr));
    LOCKSTEP_ASSIGN_OR_RETURN(lone_y[rank], ToArray(worker, y));
    return absl::OkStatus();
  }));
  for (std::size_t rank = 0; rank < 3; ++rank) REQUIRE(SameBits(kept_y[rank], lone_y[rank]));
}

TEST_CASE("A pass of an MLP takes one collective in each direction", "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  std::vector<std::uint64_t> counts;
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto mlp, ParallelMlp::Create(worker, comm,
                                      {.in_features = 4, .hidden_features = 8, .out_features = 4}));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({3, 4}, DType::kFloat32));
    ParallelMlp::Activations kept;
    const std::uint64_t start = comm.stats().num_collectives;
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, mlp.Forward(x, &kept));
    const std::uint64_t between = comm.stats().num_collectives;
    LOCKSTEP_RETURN_IF_ERROR(mlp.Backward(x, kept, y).status());
    if (worker.rank() == 0) counts = {between - start, comm.stats().num_collectives - between};
    return absl::OkStatus();
  }));
  REQUIRE(counts == std::vector<std::uint64_t>{1, 1});
}

TEST_CASE("SGD on shards trains like SGD on the whole, and replicas stay bit-equal", "[gpu]") {
  RequireTrainsLikeUnsharded<Sgd>(
      SgdOptions{.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.01});
}

TEST_CASE("AdamW on shards trains like AdamW on the whole, and replicas stay bit-equal", "[gpu]") {
  RequireTrainsLikeUnsharded<AdamW>(AdamWOptions{.learning_rate = 0.01});
}

}  // namespace lockstep::testing
