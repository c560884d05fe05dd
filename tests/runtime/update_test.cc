#include "lockstep/runtime/update.h"

#include <cmath>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

TEST_CASE("SGD with momentum and weight decay takes the steps that its formula says") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  double gradient = 0.5;
  double velocity = 0;
  double weight = 2;
  const auto view = [](double& x) { return Tensor::View(&x, {1}, DType::kFloat64); };
  const SgdOptions options{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01};
  double expected_velocity = 0;
  double expected = 2;
  for (int step = 0; step < 3; ++step) {
    REQUIRE_OK(
        SgdUpdate(*worker, options, view(gradient), view(velocity), view(weight), view(weight)));
    expected_velocity = 0.9 * expected_velocity + 0.5 + 0.01 * expected;
    expected -= 0.1 * expected_velocity;
    CHECK(std::abs(weight - expected) < 1e-15);
  }
}

TEST_CASE(
    "AdamW's first step is the learning rate, whatever the gradient, and its decay is decoupled") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  for (double gradient : {1e-3, 5.0, -70.0}) {
    double mean = 0;
    double square = 0;
    double weight = 2;
    const auto view = [](double& x) { return Tensor::View(&x, {1}, DType::kFloat64); };
    const AdamWOptions options{.learning_rate = 0.1, .epsilon = 0, .weight_decay = 0.5};
    REQUIRE_OK(AdamWUpdate(*worker, options, 1, view(gradient), view(mean), view(square),
                           view(weight), view(weight)));
    CHECK(std::abs(weight - (2 - 0.1 * (gradient > 0 ? 1 : -1) - 0.1 * 0.5 * 2)) < 1e-12);
  }
}

TEST_CASE("a 16-bit value follows its master, which keeps what the value cannot show") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  float gradient = 1;
  float velocity = 0;
  float master = 1;
  BFloat16 value = BFloat16::FromFloat(1);
  const auto view = [](float& x) { return Tensor::View(&x, {1}, DType::kFloat32); };
  // Each step is a sixteenth of the distance to the next bfloat16 below 1.
  const SgdOptions options{.learning_rate = 0x1p-12, .momentum = 0};
  for (int step = 0; step < 16; ++step) {
    REQUIRE_OK(SgdUpdate(*worker, options, view(gradient), view(velocity), view(master),
                         Tensor::View(&value, {1}, DType::kBFloat16)));
  }
  CHECK(master == 1 - 0x1p-8f);
  CHECK(value.ToFloat() == 1 - 0x1p-8f);
}

TEST_CASE("state that does not fit is refused") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  const Tensor two = *worker->Zeros({2}, DType::kFloat32);
  const Tensor three = *worker->Zeros({3}, DType::kFloat32);
  CHECK(Says(SgdUpdate(*worker, {}, two, three, two, two), "one shape"));
  CHECK(Says(SgdUpdate(*worker, {}, *worker->Zeros({2}, DType::kBFloat16), two, two, two),
             "float32 or float64"));
  CHECK(Says(AdamWUpdate(*worker, {}, 0, two, two, two, two, two), "steps count from 1"));
}

}  // namespace
}  // namespace lockstep
