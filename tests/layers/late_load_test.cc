// Values that are written after the optimizer was made.
#include <cmath>
#include <functional>
#include <limits>

#include "lockstep/layers/optimizer.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/array.h"

namespace lockstep::testing {
namespace {

absl::StatusOr<Worker> LoneWorker() { return Worker::Adopt(0, 1, Device::Cpu()); }

// A parameter [3] whose every element is `value`.
absl::StatusOr<Parameter> ParameterOf(Worker& worker, DType dtype, double value) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto parameter, Parameter::Create(worker, "p", {3}, dtype));
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, value, parameter.value()));
  return parameter;
}

// A parameter whose value is written by `write` between Create and the last of `num_steps` steps
// without a gradient; gives the value after that.
template <typename Optimizer, typename Options>
absl::StatusOr<double> ValueAfterLateWrite(
    DType dtype, const Options& options,
    const std::function<absl::Status(Worker&, const Parameter&)>& write, int num_steps) {
  LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, LoneWorker());
  LOCKSTEP_ASSIGN_OR_RETURN(auto parameter, ParameterOf(worker, dtype, 0.5));
  LOCKSTEP_ASSIGN_OR_RETURN(auto optimizer, Optimizer::Create(worker, {&parameter}, options));
  for (int step = 0; step < num_steps; ++step) LOCKSTEP_RETURN_IF_ERROR(optimizer.Step());
  LOCKSTEP_RETURN_IF_ERROR(write(worker, parameter));
  LOCKSTEP_RETURN_IF_ERROR(optimizer.Step());
  LOCKSTEP_ASSIGN_OR_RETURN(Array array, ToArray(worker, parameter.value()));
  return array.values[1];
}

}  // namespace

TEST_CASE("Whatever was written to a value last, and in whatever way, the next step goes on from") {
  using Write = std::function<absl::Status(Worker&, const Parameter&)>;
  const auto load = [](double value) -> Write {
    return [value](Worker& worker, const Parameter& parameter) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor full,
                                ToTensor(worker, Array::Constant({3}, value), DType::kFloat32));
      return parameter.LoadFull(worker, full);
    };
  };
  const Write twice = [&](Worker& worker, const Parameter& parameter) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(load(7)(worker, parameter));
    return load(5)(worker, parameter);
  };
  const Write shard = [](Worker& worker, const Parameter& parameter) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor part,
                              ToTensor(worker, Array::Constant({3}, 5), DType::kFloat64));
    return parameter.LoadShard(worker, part, Orientation::kInOut);
  };
  const Write fill = [](Worker& worker, const Parameter& parameter) {
    return Fill(worker, 5, parameter.value());
  };
  const Write one_element = [](Worker& worker, const Parameter& parameter) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor second, parameter.value().Slice(0, 1, 1));
    return Fill(worker, 5, second);
  };
  for (const DType dtype : kFloatingTypes) {
    for (const Write& write : {load(5), twice, shard, fill, one_element}) {
      for (const int num_steps : {0, 2}) {
        const auto sgd = ValueAfterLateWrite<Sgd>(dtype, SgdOptions{}, write, num_steps);
        const auto adamw =
            ValueAfterLateWrite<AdamW>(dtype, AdamWOptions{.weight_decay = 0}, write, num_steps);
        REQUIRE_OK(sgd);
        REQUIRE_OK(adamw);
        REQUIRE(*sgd == 5);
        REQUIRE(*adamw == 5);
      }
    }
    // Drawn values are equal to what a parameter draws that nobody optimizes.
    const Write draw = [](Worker& worker, const Parameter& parameter) {
      return parameter.InitializeUniform(worker, 3, 1.0F);
    };
    auto worker = LoneWorker();
    REQUIRE_OK(worker);
    auto other = ParameterOf(*worker, dtype, 0);
    REQUIRE_OK(other);
    REQUIRE_OK(draw(*worker, *other));
    const auto drawn = ToArray(*worker, other->value());
    const auto stepped = ValueAfterLateWrite<Sgd>(dtype, SgdOptions{}, draw, 1);
    REQUIRE_OK(drawn);
    REQUIRE_OK(stepped);
    REQUIRE(*stepped == drawn->values[1]);
  }
}

TEST_CASE("A load between Backward and the step takes that step, and the velocity stays") {
  for (const DType dtype : kFloatingTypes) {
    auto worker = LoneWorker();
    REQUIRE_OK(worker);
    auto parameter = ParameterOf(*worker, dtype, 1.0);
    REQUIRE_OK(parameter);
    auto sgd = Sgd::Create(*worker, {&*parameter}, {.learning_rate = 0.5, .momentum = 0.5});
    REQUIRE_OK(sgd);
    REQUIRE_OK(Fill(*worker, 1.0, parameter->gradient()));
    REQUIRE_OK(Fill(*worker, 4.0, parameter->value()));
    REQUIRE_OK(sgd->Step());
    // velocity 1
    auto value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(value->values[0] == 3.5);
    REQUIRE_OK(Fill(*worker, 8.0, parameter->value()));
    REQUIRE_OK(sgd->Step());
    // velocity 0.5, without a gradient
    value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(value->values[0] == 7.75);
  }
}

TEST_CASE("Two optimizers of one 16-bit parameter go on from each other's steps") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto parameter = ParameterOf(*worker, DType::kBFloat16, 8.0);
  REQUIRE_OK(parameter);
  const SgdOptions options{.learning_rate = 1.0, .momentum = 0.0};
  auto first = Sgd::Create(*worker, {&*parameter}, options);
  auto second = Sgd::Create(*worker, {&*parameter}, options);
  REQUIRE_OK(first);
  REQUIRE_OK(second);
  for (const double expected : {7.0, 6.0, 5.0, 4.0}) {
    REQUIRE_OK(Fill(*worker, 1.0, parameter->gradient()));
    REQUIRE_OK(expected == 7.0 || expected == 5.0 ? first->Step() : second->Step());
    const auto value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(value->values[0] == expected);
  }
}

TEST_CASE("A NaN that is loaded late stays one, and a number loaded over it is one again") {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    auto worker = LoneWorker();
    REQUIRE_OK(worker);
    auto parameter = ParameterOf(*worker, dtype, 1.0);
    REQUIRE_OK(parameter);
    // Whose means do not see the value, as SGD's velocity does.
    auto adamw = AdamW::Create(*worker, {&*parameter}, {});
    REQUIRE_OK(adamw);
    REQUIRE_OK(Fill(*worker, std::numeric_limits<double>::quiet_NaN(), parameter->value()));
    for (int step = 0; step < 2; ++step) REQUIRE_OK(adamw->Step());
    auto value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(std::isnan(value->values[0]));
    REQUIRE_OK(Fill(*worker, -0.0, parameter->value()));
    REQUIRE_OK(adamw->Step());
    value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(value->values[0] == 0.0);
  }
}

}  // namespace lockstep::testing
