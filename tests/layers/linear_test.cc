#include "lockstep/layers/linear.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

// The pass of an unsharded layer.
absl::StatusOr<Pass> PassOf(const Linear::Options& options, const Inputs& inputs) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks alone, CreateRanks(1));
  LOCKSTEP_ASSIGN_OR_RETURN(auto passes, RunPasses(alone, Make(options), inputs));
  return passes.front();
}

absl::StatusOr<Worker> LoneWorker() { return Worker::Adopt(0, 1, Device::Cpu()); }

// What a layer of `options` starts with, parameter by parameter.
absl::StatusOr<std::vector<Array>> StartingValues(const Linear::Options& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, LoneWorker());
  LOCKSTEP_ASSIGN_OR_RETURN(Linear linear, Linear::Create(worker, options));
  std::vector<Array> values;
  for (const Parameter* parameter : linear.parameters()) {
    LOCKSTEP_ASSIGN_OR_RETURN(values.emplace_back(), ToArray(worker, parameter->value()));
  }
  return values;
}

}  // namespace

TEST_CASE("A linear layer computes X W + b and the three gradients", "[gpu]") {
  for (const DType dtype : kFloatingTypes) {
    const Inputs inputs{.dtype = dtype,
                        .parameters = {{{2, 3}, {1, 0, -1, 2, 1, 0}}, {{3}, {10, 20, 30}}},
                        .x = {{2, 2}, {1, 2, 3, 4}},
                        .grad_out = {{2, 3}, {1, 0, 2, 0, 1, 1}}};
    const auto pass = PassOf({.in_features = 2, .out_features = 3, .dtype = dtype}, inputs);
    REQUIRE_OK(pass);
    REQUIRE(SameBits(pass->y, {{2, 3}, {15, 22, 29, 21, 24, 27}}));
    REQUIRE(SameBits(pass->grad_x, {{2, 2}, {-1, 2, -1, 1}}));
    REQUIRE(SameBits(pass->gradients[0], {{2, 3}, {1, 3, 5, 2, 4, 8}}));
    REQUIRE(SameBits(pass->gradients[1], {{3}, {1, 1, 3}}));
  }
}

TEST_CASE("Where the bias follows the product at once, a 16-bit result is rounded once", "[gpu]") {
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  // The product, big + 1, has no place in the type and rounds to big.
  for (const auto& [dtype, big] :
       {std::pair{DType::kBFloat16, 256.0}, std::pair{DType::kFloat16, 2048.0}}) {
    const Inputs inputs{.dtype = dtype,
                        .parameters = {{{2, 1}, {big, 1}}, {{1}, {-big}}},
                        .x = {{1, 2}, {1, 1}},
                        .grad_out = {{1, 1}, {1}}};
    const auto whole = PassOf({.in_features = 2, .out_features = 1, .dtype = dtype}, inputs);
    const auto column = RunPasses(
        *alone,
        Make(ColumnParallelLinear::Options{.in_features = 2, .out_features = 1, .dtype = dtype}),
        inputs);
    REQUIRE_OK(whole);
    REQUIRE_OK(column);
    REQUIRE(SameBits(whole->y, {{1, 1}, {1}}));
    REQUIRE(SameBits(column->front().y, {{1, 1}, {1}}));
  }
}

TEST_CASE("A linear layer's gradients are its derivatives", "[gpu]") {
  const bool bias = GENERATE(true, false);
  const Inputs inputs = Inputs::Uniform(DType::kFloat64, 3, {5, 4}, bias);
  const Linear::Options options{
      .in_features = 5, .out_features = 4, .bias = bias, .dtype = DType::kFloat64};
  const auto pass = PassOf(options, inputs);
  REQUIRE_OK(pass);
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  Pass differences;
  REQUIRE_OK(alone->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, Make(options)(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(differences, DifferencePass(worker, layer, inputs));
    return absl::OkStatus();
  }));
  REQUIRE(Distance(pass->grad_x, differences.grad_x) < 1e-8);
  REQUIRE(pass->gradients.size() == (bias ? 2 : 1));
  for (std::size_t i = 0; i < pass->gradients.size(); ++i) {
    REQUIRE(Distance(pass->gradients[i], differences.gradients[i]) < 1e-8);
  }
}

TEST_CASE("Gradients add up over Backward calls until zeroed, without 16-bit rounding") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  for (const DType dtype : kFloatingTypes) {
    auto linear = Linear::Create(*worker, {.in_features = 1, .out_features = 1, .dtype = dtype});
    REQUIRE_OK(linear);
    const auto x = ToTensor(*worker, Array::Constant({1, 1}, 1.0), dtype);
    REQUIRE_OK(x);
    // 4096 + 0.5 + 0.5 is 4096 in 16 bits.
    for (const double grad : {4096.0, 0.5, 0.5}) {
      const auto grad_out = ToTensor(*worker, Array::Constant({1, 1}, grad), dtype);
      REQUIRE_OK(grad_out);
      REQUIRE_OK(linear->Backward(*x, *grad_out));
    }
    for (const Parameter* parameter : linear->parameters()) {
      auto gradient = ToArray(*worker, parameter->gradient());
      REQUIRE_OK(gradient);
      REQUIRE(gradient->values[0] == 4097.0);
      REQUIRE_OK(parameter->ZeroGradient(*worker));
      gradient = ToArray(*worker, parameter->gradient());
      REQUIRE_OK(gradient);
      REQUIRE(gradient->values[0] == 0.0);
    }
  }
}

TEST_CASE("A linear layer of size 0 in any direction computes what is left", "[gpu]") {
  for (const DType dtype : kFloatingTypes) {
    for (const auto& [tokens, in_features, out_features] :
         {std::array{0, 2, 3}, std::array{2, 0, 3}, std::array{2, 3, 0}, std::array{0, 0, 0}}) {
      const Inputs inputs = Inputs::Uniform(dtype, tokens, {in_features, out_features}, true);
      const auto pass = PassOf(
          {.in_features = in_features, .out_features = out_features, .dtype = dtype}, inputs);
      REQUIRE_OK(pass);
      REQUIRE(pass->y.shape == Shape{tokens, out_features});
      REQUIRE(SameBits(pass->grad_x, Array::Constant({tokens, in_features}, 0.0)));
      REQUIRE(SameBits(pass->gradients[0], Array::Constant({in_features, out_features}, 0.0)));
    }
  }
}

TEST_CASE("Without inputs, the result is the bias, and a layer starts with a bias of zero",
          "[gpu]") {
  const auto values = StartingValues({.in_features = 0, .out_features = 3});
  REQUIRE_OK(values);
  REQUIRE(SameBits((*values)[1], Array::Constant({3}, 0.0)));
  const Inputs inputs{.dtype = DType::kFloat32,
                      .parameters = {{{0, 2}, {}}, {{2}, {1, 2}}},
                      .x = {{2, 0}, {}},
                      .grad_out = Array::Constant({2, 2}, 1.0)};
  const auto pass = PassOf({.in_features = 0, .out_features = 2}, inputs);
  REQUIRE_OK(pass);
  REQUIRE(SameBits(pass->y, {{2, 2}, {1, 2, 1, 2}}));
}

TEST_CASE("Weight and bias start within 1 / sqrt(in_features), different and fixed by the seed") {
  const auto seed = GENERATE(as<std::uint64_t>{}, 0, 3);
  const Linear::Options options{.in_features = 16, .out_features = 16, .seed = seed};
  const auto values = StartingValues(options);
  const auto again = StartingValues(options);
  REQUIRE_OK(values);
  REQUIRE_OK(again);
  for (std::size_t i = 0; i < 2; ++i) {
    REQUIRE(SameBits((*values)[i], (*again)[i]));
    double largest = 0.0;
    for (const double value : (*values)[i].values) largest = std::max(largest, std::abs(value));
    REQUIRE(largest <= 0.25);
    REQUIRE(largest > 0.2);
  }
  // A bias from a seed a few steps along would repeat a run of the weight's elements.
  const std::vector<double>& weight = (*values)[0].values;
  for (const double value : (*values)[1].values) {
    REQUIRE(std::count(weight.begin(), weight.end(), value) == 0);
  }
  const auto others = StartingValues({.in_features = 16, .out_features = 16, .seed = 4});
  REQUIRE_OK(others);
  for (std::size_t i = 0; i < 2; ++i) REQUIRE_FALSE(SameBits((*values)[i], (*others)[i]));
}

TEST_CASE("A layer without a bias has one parameter and no bias to point at") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto without = Linear::Create(*worker, {.in_features = 2, .out_features = 3, .bias = false});
  auto with = Linear::Create(*worker, {.in_features = 2, .out_features = 3});
  REQUIRE_OK(without);
  REQUIRE_OK(with);
  REQUIRE(without->bias() == nullptr);
  REQUIRE(without->parameters() == std::vector<Parameter*>{&without->weight()});
  REQUIRE(with->parameters() == std::vector<Parameter*>{&with->weight(), with->bias()});
}

}  // namespace lockstep::testing
