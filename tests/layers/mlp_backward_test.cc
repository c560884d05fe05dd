// An MLP's Backward checks all of its tensors first: an error must not leave the gradients of one
// layer added and of the other not.
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {

TEST_CASE("An MLP's Backward refuses each of its tensors before it adds to any gradient", "[gpu]") {
  auto group = CreateRanks(1);
  REQUIRE_OK(group);
  enum Which { kX, kXTokens, kXType, kGradOut, kBefore, kAfter };
  const std::pair<Which, const char*> refusals[] = {
      {kX, "ParallelMlp::Backward: x is float32 [3, 5], but in_features is 4"},
      {kXTokens, "ParallelMlp::Backward: grad_out is float32 [3, 2], but x is float32 [2, 4]"},
      {kXType, "ParallelMlp::Backward: x is float64 [3, 4], but the layer's type is float32"},
      {kGradOut, "ParallelMlp::Backward: grad_out is float32 [3, 4], but out_features is 2"},
      {kBefore, "ParallelMlp::Backward: kept.before is float32 [0], but hidden_features is 5"},
      {kAfter, "ParallelMlp::Backward: kept.after is float32 [3, 4], but hidden_features is 5"}};
  for (const auto& [which, says] : refusals) {
    absl::Status backward;
    std::vector<Array> gradients;
    REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          auto mlp, ParallelMlp::Create(
                        worker, comm, {.in_features = 4, .hidden_features = 5, .out_features = 2}));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({3, 4}, DType::kFloat32));
      ParallelMlp::Activations kept;
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, mlp.Forward(x, &kept));
      LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1.0, grad_out));
      const Tensor four = x;
      Tensor& wrong = which == kGradOut  ? grad_out
                      : which == kBefore ? kept.before
                      : which == kAfter  ? kept.after
                                         : x;
      if (which == kX) {
        LOCKSTEP_ASSIGN_OR_RETURN(wrong, worker.Zeros({3, 5}, DType::kFloat32));
      } else if (which == kXTokens) {
        LOCKSTEP_ASSIGN_OR_RETURN(wrong, worker.Zeros({2, 4}, DType::kFloat32));
      } else if (which == kXType) {
        LOCKSTEP_ASSIGN_OR_RETURN(wrong, worker.Zeros({3, 4}, DType::kFloat64));
      } else {
        wrong = which == kBefore ? Tensor() : four;
      }
      backward = mlp.Backward(x, kept, grad_out).status();
      for (const Parameter* parameter : mlp.parameters()) {
        LOCKSTEP_ASSIGN_OR_RETURN(gradients.emplace_back(), ToArray(worker, parameter->gradient()));
      }
      return absl::OkStatus();
    }));
    INFO(backward.ToString());
    REQUIRE(backward.code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(Says(backward, says));
    for (const Array& gradient : gradients) {
      REQUIRE(SameBits(gradient, Array::Constant(gradient.shape, 0.0)));
    }
    REQUIRE_OK(group->barrier->Reset());
  }
}

TEST_CASE("An MLP's Backward without what Forward kept says so, and adds to no gradient", "[gpu]") {
  auto group = CreateRanks(1);
  REQUIRE_OK(group);
  absl::Status backward;
  Array gradient;
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto mlp, ParallelMlp::Create(worker, comm,
                                      {.in_features = 4, .hidden_features = 5, .out_features = 2}));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x,
                              ToTensor(worker, Array::Constant({3, 4}, 1.0), DType::kFloat32));
    ParallelMlp::Activations kept;
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, mlp.Forward(x, &kept));
    // Kept from a pass over another batch.
    LOCKSTEP_ASSIGN_OR_RETURN(kept.before, kept.before.Slice(0, 0, 2));
    backward = mlp.Backward(x, kept, y).status();
    LOCKSTEP_ASSIGN_OR_RETURN(gradient, ToArray(worker, mlp.down().weight().gradient()));
    return absl::OkStatus();
  }));
  REQUIRE(backward.code() == absl::StatusCode::kInvalidArgument);
  for (const char* part : {"ParallelMlp::Backward", "float32 [3, 2]", "float32 [2, 5]"}) {
    REQUIRE(Says(backward, part));
  }
  REQUIRE(SameBits(gradient, Array::Constant({5, 2}, 0.0)));
}

}  // namespace lockstep::testing
