#include "lockstep/runtime/update.h"

#include <cmath>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Difference;
using testing::Epsilon;
using testing::kFloatingTypes;
using testing::Make;
using testing::MakeWorker;
using testing::Says;
using testing::Spread;
using testing::TestDevices;
using testing::Values;

// [1], holding `value`.
Tensor MakeOne(Worker& worker, double value, DType dtype = DType::kFloat64) {
  return Make(worker, {1}, dtype, {value});
}
double ValueOf(Worker& worker, const Tensor& one) { return Values(worker, one)[0]; }

TEST_CASE("SGD with momentum and weight decay takes the steps that its formula says", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor gradient = MakeOne(worker, 0.5);
    const Tensor velocity = MakeOne(worker, 0);
    const Tensor weight = MakeOne(worker, 2);
    const SgdOptions options{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01};
    double expected_velocity = 0;
    double expected = 2;
    for (int step = 0; step < 3; ++step) {
      REQUIRE_OK(SgdUpdate(worker, options, gradient, velocity, weight, weight));
      expected_velocity = 0.9 * expected_velocity + 0.5 + 0.01 * expected;
      expected -= 0.1 * expected_velocity;
      CHECK(std::abs(ValueOf(worker, weight) - expected) < 1e-15);
    }
  }
}

TEST_CASE(
    "AdamW's first step is the learning rate, whatever the gradient, and its decay is decoupled",
    "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const double slope : {1e-3, 5.0, -70.0}) {
      const Tensor weight = MakeOne(worker, 2);
      const AdamWOptions options{.learning_rate = 0.1, .epsilon = 0, .weight_decay = 0.5};
      REQUIRE_OK(AdamWUpdate(worker, options, 1, MakeOne(worker, slope), MakeOne(worker, 0),
                             MakeOne(worker, 0), weight, weight));
      CHECK(std::abs(ValueOf(worker, weight) - (2 - 0.1 * (slope > 0 ? 1 : -1) - 0.1 * 0.5 * 2)) <
            1e-12);
    }
  }
}

// Gradients of two weights over three steps.
constexpr double kGradients[3][2] = {{0.5, -1.5}, {-0.25, 0.75}, {2, 0.125}};

TEST_CASE("two weights take three steps of SGD and AdamW to numbers worked out by hand", "[gpu]") {
  // From 1 and -2, in decimals of 40 digits by the papers' formulas.
  constexpr double kSgd[3][2] = {
      {0.948, -1.846}, {0.924304, -1.778708}, {0.701128992, -1.727087784}};
  constexpr double kAdamW[3][2] = {{0.896960784313725490, -1.89066225165562913},
                                   {0.871758265904436574, -1.86014205981600573},
                                   {0.797083433262399662, -1.84082092177406951}};
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
      const double near = dtype == DType::kFloat64 ? 1e-14 : 1e-6;
      for (const bool adamw : {false, true}) {
        const Tensor weight = Make(worker, {2}, dtype, {1, -2});
        const Tensor value = *worker.Zeros({2}, DType::kFloat64);
        const Tensor mean = *worker.Zeros({2}, dtype);
        const Tensor mean_square = *worker.Zeros({2}, dtype);
        for (int step = 0; step < 3; ++step) {
          const Tensor gradient =
              Make(worker, {2}, dtype, {kGradients[step][0], kGradients[step][1]});
          const SgdOptions sgd{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.02};
          const AdamWOptions options{.learning_rate = 0.1,
                                     .beta1 = 0.8,
                                     .beta2 = 0.95,
                                     .epsilon = 0.01,
                                     .weight_decay = 0.05};
          REQUIRE_OK(adamw ? AdamWUpdate(worker, options, step + 1, gradient, mean, mean_square,
                                         weight, value)
                           : SgdUpdate(worker, sgd, gradient, mean, weight, value));
          const auto& expected = adamw ? kAdamW[step] : kSgd[step];
          CHECK(Difference(Values(worker, weight), {expected[0], expected[1]}) < near);
          CHECK(Values(worker, value) == Values(worker, weight));
        }
      }
    }
  }
}

TEST_CASE("a 16-bit value follows its master, which keeps what the value cannot show", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor gradient = MakeOne(worker, 1, DType::kFloat32);
    const Tensor velocity = MakeOne(worker, 0, DType::kFloat32);
    const Tensor master = MakeOne(worker, 1, DType::kFloat32);
    const Tensor value = MakeOne(worker, 1, DType::kBFloat16);
    // Each step is a sixteenth of the distance to the next bfloat16 below 1.
    const SgdOptions options{.learning_rate = 0x1p-12, .momentum = 0};
    for (int step = 0; step < 16; ++step)
      REQUIRE_OK(SgdUpdate(worker, options, gradient, velocity, master, value));
    CHECK(ValueOf(worker, master) == 1 - 0x1p-8f);
    CHECK(ValueOf(worker, value) == 1 - 0x1p-8f);
  }
}

TEST_CASE("what somebody has written to a 16-bit value since is taken as its master, by element",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      for (const DType wide : {DType::kFloat32, DType::kFloat64}) {
        for (const bool adamw : {false, true}) {
          const Tensor zero = *worker.Zeros({4}, wide);
          const Tensor mean = *worker.Zeros({4}, wide);
          // The first two round to 1, which the value shows; then 5 and -0 were written.
          const Tensor master = Make(worker, {4}, wide, {1 + 0x1p-14, 1 - 0x1p-14, 1, 0});
          const Tensor value = Make(worker, {4}, dtype, {1, 1, 5, -0.0});
          REQUIRE_OK(
              adamw ? AdamWUpdate(worker, {.weight_decay = 0}, 1, zero, mean, zero, master, value)
                    : SgdUpdate(worker, {}, zero, mean, master, value));
          CHECK(Values(worker, master) == std::vector<double>{1 + 0x1p-14, 1 - 0x1p-14, 5, 0});
          CHECK(Values(worker, value) == std::vector<double>{1, 1, 5, 0});
        }
      }
    }
  }
}

TEST_CASE(
    "every device takes the CPU's steps to the last bit, with any number of elements and any "
    "types",
    "[gpu]") {
  // Master and value after three steps.
  const auto step = [](Worker& worker, bool adamw, std::int64_t count, DType master, DType value) {
    const auto make = [&](DType dtype, int salt) {
      // A whole row of these is contiguous, and not aligned to more than an element.
      const Tensor all = Make(worker, {count + 1}, dtype, Spread(count + 1, salt));
      return *all.Slice(0, 1, count);
    };
    const Tensor gradient = make(master, 1);
    const Tensor mean = *worker.Zeros({count}, master);
    const Tensor mean_square = *worker.Zeros({count}, master);
    const Tensor weight = make(master, 2);
    const Tensor shown = value == master ? weight : make(value, 3);
    for (int t = 1; t <= 3; ++t) {
      REQUIRE_OK(adamw ? AdamWUpdate(worker, {}, t, gradient, mean, mean_square, weight, shown)
                       : SgdUpdate(worker, {.weight_decay = 0.1}, gradient, mean, weight, shown));
    }
    return std::pair(Values(worker, weight), Values(worker, shown));
  };
  Worker cpu = MakeWorker();
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const bool adamw : {false, true}) {
      for (const std::int64_t count : {0, 1, 1000, 4099}) {
        for (const DType master : {DType::kFloat32, DType::kFloat64}) {
          for (const DType value : kFloatingTypes) {
            const auto [weight, shown] = step(worker, adamw, count, master, value);
            const auto [expected, expected_shown] = step(cpu, adamw, count, master, value);
            CHECK(weight == expected);
            CHECK(shown == expected_shown);
          }
        }
      }
    }
  }
}

TEST_CASE("state that does not fit is refused", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor two = *worker.Zeros({2}, DType::kFloat32);
    const Tensor three = *worker.Zeros({3}, DType::kFloat32);
    CHECK(Says(SgdUpdate(worker, {}, two, three, two, two), "one shape"));
    CHECK(Says(SgdUpdate(worker, {}, *worker.Zeros({2}, DType::kBFloat16), two, two, two),
               "float32 or float64"));
    CHECK(Says(AdamWUpdate(worker, {}, -1, two, two, two, two, two), "step -1"));
    CHECK(Says(AdamWUpdate(worker, {}, 0, two, two, two, two, two), "steps count from 1"));
  }
}

}  // namespace
}  // namespace lockstep
