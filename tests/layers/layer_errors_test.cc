// What the layers say of tensors that do not fit, and what becomes of the other ranks.
#include <algorithm>
#include <chrono>
#include <string>
#include <type_traits>
#include <utility>

#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/linear.h"
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

using TensorShapes = std::pair<Shape, Shape>;  // of x and of grad_out

// A pass of a fresh layer over zeros of these shapes.
template <typename Layer, typename... Comm>
absl::Status RunZeros(const typename Layer::Options& options, const TensorShapes& shapes,
                      DType dtype, Worker& worker, Comm&... comm) {
  LOCKSTEP_ASSIGN_OR_RETURN(Layer layer, Layer::Create(worker, comm..., options));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros(shapes.first, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, worker.Zeros(shapes.second, dtype));
  if constexpr (std::is_same_v<Layer, ParallelMlp>) {
    ParallelMlp::Activations kept;
    LOCKSTEP_RETURN_IF_ERROR(layer.Forward(x, &kept).status());
    return layer.Backward(x, kept, grad_out).status();
  } else {
    LOCKSTEP_RETURN_IF_ERROR(layer.Forward(x).status());
    return layer.Backward(x, grad_out).status();
  }
}

struct Refusal {
  absl::Status status;
  std::vector<std::string> says;
};

void RequireRefused(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    INFO(refusal.status.ToString());
    REQUIRE(refusal.status.code() == absl::StatusCode::kInvalidArgument);
    for (const std::string& part : refusal.says) {
      CAPTURE(part);
      REQUIRE(Says(refusal.status, part));
    }
  }
}

// Runs `pass` on three ranks, of which rank 1 brings `bad` shapes and the others `good` ones: every
// rank must hear of it, soon, and the healed group must serve a pass that is good on every rank.
void RequireAllRanksHear(
    const std::function<absl::Status(Worker&, Communicator&, const TensorShapes&)>& pass,
    const std::function<TensorShapes(int rank)>& good, const TensorShapes& bad,
    absl::StatusCode culprit_code, const std::string& culprit_says) {
  auto group = CreateRanks(3);
  REQUIRE_OK(group);
  std::vector<absl::Status> statuses(3);
  const auto run = [&](bool with_bad) {
    return group->Run([&](Worker& worker, Communicator& comm) {
      const int rank = worker.rank();
      absl::Status& status = statuses[rank];
      status = pass(worker, comm, with_bad && rank == 1 ? bad : good(rank));
      return status;
    });
  };
  const auto start = std::chrono::steady_clock::now();
  REQUIRE_FALSE(run(true).ok());
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  for (const absl::Status& status : statuses) {
    INFO(status.ToString());
    REQUIRE_FALSE(status.ok());
    REQUIRE(status.code() != absl::StatusCode::kDeadlineExceeded);
  }
  INFO(statuses[1].ToString());
  REQUIRE(statuses[1].code() == culprit_code);
  REQUIRE(Says(statuses[1], culprit_says));
  REQUIRE_OK(group->barrier->Reset());
  REQUIRE_OK(run(false));
}

std::function<TensorShapes(int)> Everywhere(const TensorShapes& shapes) {
  return [shapes](int) { return shapes; };
}

}  // namespace

TEST_CASE("A linear layer names itself and both numbers when it refuses a tensor") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  const auto run = [&](const TensorShapes& shapes, DType dtype) {
    return RunZeros<Linear>({.in_features = 4, .out_features = 2}, shapes, dtype, *worker);
  };
  REQUIRE_OK(run({{3, 4}, {3, 2}}, DType::kFloat32));
  RequireRefused({
      {run({{3, 5}, {3, 2}}, DType::kFloat32),
       {"Linear::Forward: x is float32 [3, 5], but in_features is 4"}},
      {run({{4}, {3, 2}}, DType::kFloat32), {"Linear::Forward: x is float32 [4]", "[tokens, 4]"}},
      {run({{1, 3, 4}, {3, 2}}, DType::kFloat32), {"Linear::Forward: x is float32 [1, 3, 4]"}},
      {run({{3, 4}, {3, 2}}, DType::kFloat64),
       {"Linear::Forward: x is float64 [3, 4], but the layer's type is float32"}},
      {run({{3, 4}, {3, 4}}, DType::kFloat32),
       {"Linear::Backward: grad_out is float32 [3, 4], but out_features is 2"}},
      {run({{3, 4}, {2, 2}}, DType::kFloat32),
       {"Linear::Backward: grad_out is float32 [2, 2], but x is float32 [3, 4]", "tokens"}},
  });
}

TEST_CASE("Layers that cannot be are refused by name", "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  const auto create = [&](auto layer, std::int64_t in_features, std::int64_t out_features,
                          DType dtype) {
    using Layer = typename decltype(layer)::type;
    return group->Run([&](Worker& worker, Communicator& comm) {
      return Layer::Create(
                 worker, comm,
                 {.in_features = in_features, .out_features = out_features, .dtype = dtype})
          .status();
    });
  };
  constexpr std::type_identity<ColumnParallelLinear> kColumn;
  constexpr std::type_identity<RowParallelLinear> kRow;
  RequireRefused({
      {create(kColumn, -1, 2, DType::kFloat32), {"ColumnParallelLinear", "-1", "at least 0"}},
      {create(kColumn, 1, -2, DType::kFloat32), {"ColumnParallelLinear", "-2"}},
      {create(kColumn, 1, 2, DType::kInt32), {"ColumnParallelLinear", "int32", "floating"}},
      {create(kRow, -1, 2, DType::kFloat32), {"RowParallelLinear", "-1", "at least 0"}},
      {create(kRow, 1, -2, DType::kFloat32), {"RowParallelLinear", "-2"}},
      {create(kRow, 1, 2, DType::kInt64), {"RowParallelLinear", "int64", "floating"}},
  });
}

TEST_CASE("A whole tensor where a part belongs is refused, saying how much the rank holds",
          "[gpu]") {
  auto group = CreateRanks(3);
  REQUIRE_OK(group);
  // Of the rank that refuses first: another may hear of it while it still makes its layer.
  const auto refusal = [&](const Ranks::Body& body) {
    const std::vector<absl::Status> statuses = group->RunEach(body);
    const auto own = std::find_if(statuses.begin(), statuses.end(), [](const absl::Status& status) {
      return status.code() != absl::StatusCode::kAborted;
    });
    return own == statuses.end() ? statuses[0] : *own;
  };
  const auto column = [&](const TensorShapes& shapes) {
    return refusal([&](Worker& worker, Communicator& comm) {
      return RunZeros<ColumnParallelLinear>({.in_features = 4, .out_features = 6}, shapes,
                                            DType::kFloat32, worker, comm);
    });
  };
  const auto row = [&](const TensorShapes& shapes) {
    return refusal([&](Worker& worker, Communicator& comm) {
      return RunZeros<RowParallelLinear>({.in_features = 6, .out_features = 4}, shapes,
                                         DType::kFloat32, worker, comm);
    });
  };
  RequireRefused({{column({{3, 4}, {3, 6}}),
                   {"ColumnParallelLinear::Backward: grad_out is float32 [3, 6], but out_features "
                    "is 6, of which this rank holds 2"}}});
  REQUIRE_OK(group->barrier->Reset());
  RequireRefused({{row({{3, 6}, {3, 4}}),
                   {"RowParallelLinear::Forward: x is float32 [3, 6], but in_features is 6, of "
                    "which this rank holds 2"}}});
}

TEST_CASE("A bad tensor on one rank of a column-parallel layer is an error on all, and heals",
          "[gpu]") {
  const auto pass = [](bool gather_output) {
    return [=](Worker& worker, Communicator& comm, const TensorShapes& shapes) {
      return RunZeros<ColumnParallelLinear>(
          {.in_features = 4, .out_features = 6, .gather_output = gather_output}, shapes,
          DType::kFloat32, worker, comm);
    };
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  RequireAllRanksHear(pass(false), Everywhere({{3, 4}, {3, 2}}), {{3, 5}, {3, 2}}, kInvalid,
                      "ColumnParallelLinear::Forward: x is float32 [3, 5], but in_features is 4");
  RequireAllRanksHear(pass(true), Everywhere({{3, 4}, {3, 6}}), {{3, 5}, {3, 6}}, kInvalid,
                      "ColumnParallelLinear::Forward: x is float32 [3, 5], but in_features is 4");
  RequireAllRanksHear(pass(true), Everywhere({{3, 4}, {3, 6}}), {{3, 4}, {3, 2}}, kInvalid,
                      "ColumnParallelLinear::Backward: grad_out is float32 [3, 2], but "
                      "out_features is 6");
}

TEST_CASE("A bad tensor on one rank of a row-parallel layer is an error on all, and heals",
          "[gpu]") {
  const auto pass = [](bool input_is_parallel) {
    return [=](Worker& worker, Communicator& comm, const TensorShapes& shapes) {
      return RunZeros<RowParallelLinear>(
          {.in_features = 6, .out_features = 4, .input_is_parallel = input_is_parallel}, shapes,
          DType::kFloat32, worker, comm);
    };
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  RequireAllRanksHear(pass(true), Everywhere({{3, 2}, {3, 4}}), {{3, 6}, {3, 4}}, kInvalid,
                      "RowParallelLinear::Forward: x is float32 [3, 6], but in_features is 6");
  RequireAllRanksHear(pass(false), Everywhere({{3, 6}, {3, 4}}), {{3, 6}, {3, 5}}, kInvalid,
                      "RowParallelLinear::Backward: grad_out is float32 [3, 5], but "
                      "out_features is 4");
}

TEST_CASE("Ranks that bring different numbers of tokens all get an error that is no time-out",
          "[gpu]") {
  const auto pass = [](Worker& worker, Communicator& comm, const TensorShapes& shapes) {
    return RunZeros<RowParallelLinear>({.in_features = 6, .out_features = 4}, shapes,
                                       DType::kFloat32, worker, comm);
  };
  RequireAllRanksHear(pass, Everywhere({{3, 2}, {3, 4}}), {{2, 2}, {2, 4}},
                      absl::StatusCode::kFailedPrecondition, "all_reduce");
}

TEST_CASE("A bad tensor on one rank of an MLP is an error on all, and heals", "[gpu]") {
  const auto pass = [](Worker& worker, Communicator& comm, const TensorShapes& shapes) {
    return RunZeros<ParallelMlp>({.in_features = 4, .hidden_features = 5, .out_features = 2},
                                 shapes, DType::kFloat32, worker, comm);
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  RequireAllRanksHear(pass, Everywhere({{3, 4}, {3, 2}}), {{3, 2}, {3, 2}}, kInvalid,
                      "x is float32 [3, 2], but in_features is 4");
  RequireAllRanksHear(pass, Everywhere({{3, 4}, {3, 2}}), {{3, 4}, {3, 4}}, kInvalid,
                      "ParallelMlp::Backward: grad_out is float32 [3, 4], but out_features is 2");
}

}  // namespace lockstep::testing
