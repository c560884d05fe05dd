#include "lockstep/layers/optimizer.h"

#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "lockstep/layers/linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

absl::StatusOr<Worker> LoneWorker() { return Worker::Adopt(0, 1, Device::Cpu()); }

// A parameter [3] whose every element is `value`.
absl::StatusOr<Parameter> ParameterOf(Worker& worker, DType dtype, double value) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto parameter, Parameter::Create(worker, "p", {3}, dtype));
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, value, parameter.value()));
  return parameter;
}

// Starts from `value` and takes steps with a constant gradient; gives the value after each.
template <typename Optimizer, typename Options>
absl::StatusOr<std::vector<double>> Steps(DType dtype, double value, double gradient, int num_steps,
                                          const Options& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, LoneWorker());
  LOCKSTEP_ASSIGN_OR_RETURN(auto parameter, ParameterOf(worker, dtype, value));
  LOCKSTEP_ASSIGN_OR_RETURN(auto optimizer, Optimizer::Create(worker, {&parameter}, options));
  std::vector<double> values;
  for (int step = 0; step < num_steps; ++step) {
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, gradient, parameter.gradient()));
    LOCKSTEP_RETURN_IF_ERROR(optimizer.Step());
    LOCKSTEP_ASSIGN_OR_RETURN(Array array, ToArray(worker, parameter.value()));
    if (array.values[0] != array.values[2]) return absl::InternalError("elements differ");
    values.push_back(array.values[0]);
  }
  return values;
}

// Against expected(number of steps taken), with the type's own precision.
void RequireFollows(const absl::StatusOr<std::vector<double>>& values, DType dtype,
                    const std::function<double(int)>& expected) {
  REQUIRE_OK(values);
  int step = 0;
  for (const double value : *values) {
    ++step;
    CAPTURE(Name(dtype).data(), step, value, expected(step));
    REQUIRE(std::abs(value - expected(step)) <= Tolerance(dtype));
  }
}

}  // namespace

TEST_CASE("SGD with a constant gradient and momentum takes the steps of a geometric series") {
  const SgdOptions options{.learning_rate = 0.125, .momentum = 0.5};
  for (const DType dtype : kFloatingTypes) {
    // velocity_n = g (1 - m^n) / (1 - m), summed up over the steps.
    RequireFollows(Steps<Sgd>(dtype, 2.0, 0.5, 12, options), dtype,
                   [](int n) { return 2.0 - 0.125 * 0.5 * (n - (1.0 - std::pow(0.5, n))) / 0.5; });
  }
}

TEST_CASE("SGD's weight decay without a gradient shrinks the value geometrically") {
  const SgdOptions options{.learning_rate = 0.5, .momentum = 0.0, .weight_decay = 0.25};
  for (const DType dtype : kFloatingTypes) {
    RequireFollows(Steps<Sgd>(dtype, 1.0, 0.0, 12, options), dtype,
                   [](int n) { return std::pow(1.0 - 0.5 * 0.25, n); });
  }
}

TEST_CASE("AdamW with a constant gradient of any size takes steps of the learning rate") {
  const AdamWOptions options{.learning_rate = 0.0625, .weight_decay = 0.0};
  for (const DType dtype : kFloatingTypes) {
    for (const double gradient : {1e-3, -7.0, 1e4}) {
      // The corrected means are g and g^2 from the first step on.
      const double step = 0.0625 * gradient / (std::abs(gradient) + 1e-8);
      RequireFollows(Steps<AdamW>(dtype, 1.0, gradient, 12, options), dtype,
                     [=](int n) { return 1.0 - n * step; });
    }
  }
}

TEST_CASE("AdamW's weight decay does not pass through the running means") {
  const AdamWOptions options{.learning_rate = 0.125, .weight_decay = 0.5};
  for (const DType dtype : kFloatingTypes) {
    // w <- (1 - lr wd) w - lr u, whose fixed point is -u / wd.
    const double u = 2.0 / (2.0 + 1e-8);
    RequireFollows(Steps<AdamW>(dtype, 1.0, 2.0, 12, options), dtype, [=](int n) {
      return (1.0 + u / 0.5) * std::pow(1.0 - 0.125 * 0.5, n) - u / 0.5;
    });
  }
}

TEST_CASE("Steps too small for a 16-bit value add up") {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const auto sgd =
        Steps<Sgd>(dtype, 1.0, 1.0, 1000, SgdOptions{.learning_rate = 1e-4, .momentum = 0.0});
    const auto adamw = Steps<AdamW>(dtype, 1.0, 1.0, 1000,
                                    AdamWOptions{.learning_rate = 1e-4, .weight_decay = 0.0});
    for (const auto& values : {sgd, adamw}) {
      REQUIRE_OK(values);
      REQUIRE(values->front() == 1.0);
      // One rounding of 0.9, rather than a thousand.
      REQUIRE(std::abs(values->back() - 0.9) <= Tolerance(dtype) / 8);
    }
  }
}

TEST_CASE("A step leaves every gradient at zero") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto linear = Linear::Create(*worker, {.in_features = 3, .out_features = 2});
  REQUIRE_OK(linear);
  auto sgd = Sgd::Create(*worker, linear->parameters(), {});
  auto adamw = AdamW::Create(*worker, linear->parameters(), {});
  REQUIRE_OK(sgd);
  REQUIRE_OK(adamw);
  for (const auto& step :
       {std::function([&] { return sgd->Step(); }), std::function([&] { return adamw->Step(); })}) {
    for (const Parameter* parameter : linear->parameters()) {
      REQUIRE_OK(Fill(*worker, 1.0, parameter->gradient()));
    }
    REQUIRE_OK(step());
    for (const Parameter* parameter : linear->parameters()) {
      const auto gradient = ToArray(*worker, parameter->gradient());
      REQUIRE_OK(gradient);
      REQUIRE(SameBits(*gradient, Array::Constant(parameter->gradient().shape(), 0.0)));
    }
  }
}

TEST_CASE("Changed options count from the next step on") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto parameter = ParameterOf(*worker, DType::kFloat64, 1.0);
  REQUIRE_OK(parameter);
  auto sgd = Sgd::Create(*worker, {&*parameter}, {.learning_rate = 0.5, .momentum = 0.0});
  REQUIRE_OK(sgd);
  for (const auto& [learning_rate, expected] :
       {std::pair{0.5, 0.5}, std::pair{0.25, 0.25}, std::pair{0.0, 0.25}}) {
    sgd->options().learning_rate = learning_rate;
    REQUIRE_OK(Fill(*worker, 1.0, parameter->gradient()));
    REQUIRE_OK(sgd->Step());
    const auto value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(value->values[0] == expected);
  }
}

TEST_CASE("An optimizer still updates a layer that has moved") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto linear = Linear::Create(*worker, {.in_features = 1, .out_features = 1, .bias = false});
  REQUIRE_OK(linear);
  auto sgd = Sgd::Create(*worker, linear->parameters(), {.learning_rate = 1.0, .momentum = 0.0});
  REQUIRE_OK(sgd);
  Linear moved = *std::move(linear);
  linear = absl::CancelledError("gone");
  REQUIRE_OK(Fill(*worker, 0.0, moved.weight().value()));
  REQUIRE_OK(Fill(*worker, 2.0, moved.weight().gradient()));
  REQUIRE_OK(sgd->Step());
  const auto value = ToArray(*worker, moved.weight().value());
  REQUIRE_OK(value);
  REQUIRE(value->values[0] == -2.0);
}

TEST_CASE("Steps ask the system for no memory") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  for (const DType dtype : kFloatingTypes) {
    auto linear = Linear::Create(*worker, {.in_features = 64, .out_features = 64, .dtype = dtype});
    REQUIRE_OK(linear);
    auto sgd = Sgd::Create(*worker, linear->parameters(), {});
    auto adamw = AdamW::Create(*worker, linear->parameters(), {});
    REQUIRE_OK(sgd);
    REQUIRE_OK(adamw);
    const std::int64_t reserved = worker->memory().reserved_bytes();
    REQUIRE_OK(sgd->Step());
    REQUIRE_OK(adamw->Step());
    REQUIRE(worker->memory().reserved_bytes() == reserved);
  }
}

TEST_CASE("Parameters of no elements can be optimized, and no parameters at all") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto linear = Linear::Create(*worker, {.in_features = 3, .out_features = 0});
  REQUIRE_OK(linear);
  auto sgd = Sgd::Create(*worker, linear->parameters(), {});
  auto adamw = AdamW::Create(*worker, linear->parameters(), {});
  REQUIRE_OK(sgd);
  REQUIRE_OK(adamw);
  REQUIRE_OK(sgd->Step());
  REQUIRE_OK(adamw->Step());
  auto nothing = AdamW::Create(*worker, {}, {});
  REQUIRE_OK(nothing);
  REQUIRE_OK(nothing->Step());
}

TEST_CASE("Null and repeated parameters and options out of range are refused") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  auto a = ParameterOf(*worker, DType::kFloat32, 1.0);
  auto b = ParameterOf(*worker, DType::kFloat32, 1.0);
  REQUIRE_OK(a);
  REQUIRE_OK(b);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const auto sgd = [&](const std::vector<Parameter*>& parameters, SgdOptions options) {
    return Sgd::Create(*worker, parameters, options).status();
  };
  const auto adamw = [&](const std::vector<Parameter*>& parameters, AdamWOptions options) {
    return AdamW::Create(*worker, parameters, options).status();
  };
  REQUIRE_OK(sgd({&*a, &*b}, {}));
  REQUIRE_OK(adamw({&*a, &*b}, {}));
  for (const auto& [status, part] :
       {std::pair{sgd({&*a, nullptr}, {}), "Sgd: parameter 1 of 2 is null"},
        std::pair{adamw({nullptr}, {}), "AdamW: parameter 0 of 1 is null"},
        std::pair{sgd({&*a, &*b, &*a}, {}), "Sgd: parameter 2, p, is parameter 0 again"},
        std::pair{sgd({&*a}, {.learning_rate = -0.5}), "Sgd: learning_rate is -0.5"},
        std::pair{sgd({&*a}, {.learning_rate = nan}), "Sgd: learning_rate is nan"},
        std::pair{sgd({&*a}, {.momentum = 1.0}), "Sgd: momentum is 1"},
        std::pair{adamw({&*a}, {.beta1 = 1.0}), "AdamW: beta1 is 1"},
        std::pair{adamw({&*a}, {.beta2 = -0.5}), "AdamW: beta2 is -0.5"},
        std::pair{adamw({&*a}, {.epsilon = 0.0}), "AdamW: epsilon is 0"},
        std::pair{adamw({&*a}, {.epsilon = inf}), "AdamW: epsilon is inf"},
        std::pair{sgd({&*a}, {.learning_rate = inf}), "Sgd: learning_rate is inf"},
        std::pair{sgd({&*a}, {.momentum = -0.5}), "Sgd: momentum is -0.5"},
        std::pair{sgd({&*a}, {.momentum = nan}), "Sgd: momentum is nan"},
        std::pair{sgd({&*a}, {.weight_decay = -1}), "Sgd: weight_decay is -1"},
        std::pair{adamw({&*a}, {.learning_rate = -1}), "AdamW: learning_rate is -1"},
        std::pair{adamw({&*a}, {.weight_decay = -1}), "AdamW: weight_decay is -1"}}) {
    INFO(status.ToString());
    REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(Says(status, part));
  }
}

}  // namespace lockstep::testing
