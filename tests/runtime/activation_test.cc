// ReLU and GELU, and their slopes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Epsilon;
using testing::kFloatingTypes;
using testing::Make;
using testing::MakeWorker;
using testing::TestDevices;
using testing::Tolerance;
using testing::Values;

// x Phi(x) at a few points, from tables of the normal distribution to 12 digits.
struct GeluPoint {
  double x, value, slope;
};
constexpr GeluPoint kGeluPoints[] = {{0, 0, 0.5},
                                     {1, 0.841344746069, 1.083315470588},
                                     {-1, -0.158655253931, -0.083315470588},
                                     {2, 1.954499736104, 1.085231801078},
                                     {-3, -0.004049694095, -0.011945647204}};

TEST_CASE("GELU and its slope are the exact ones", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      for (const GeluPoint& point : kGeluPoints) {
        const Tensor x = Make(worker, {1}, dtype, {point.x});
        const auto y = Gelu(worker, x);
        REQUIRE_OK(y);
        CHECK(std::abs(Values(worker, *y)[0] - point.value) <=
              2 * Tolerance(dtype) * std::abs(point.value) + 1e-11);
        const Tensor grad = Make(worker, {1}, dtype, {2});
        REQUIRE_OK(ActivateBackward(worker, Activation::kGelu, x, grad, grad));
        CHECK(std::abs(Values(worker, grad)[0] - 2 * point.slope) <=
              4 * Tolerance(dtype) * std::abs(point.slope) + 1e-10);
      }
    }
  }
}

TEST_CASE("GELU of every 16-bit number is next to the exact one", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      std::vector<std::uint16_t> bits(1 << 16);
      std::iota(bits.begin(), bits.end(), std::uint16_t{0});
      const Tensor numbers = Tensor::View(bits.data(), {1 << 16}, dtype);
      const Tensor x = *worker.Empty({1 << 16}, dtype);
      REQUIRE_OK(Copy(worker, numbers, x));
      const std::vector<double> in = Values(worker, x);
      const std::vector<double> out = Values(worker, *Gelu(worker, x));
      int far = 0;
      for (std::size_t i = 0; i < in.size(); ++i) {
        if (!std::isfinite(in[i])) continue;
        const double exact = in[i] * 0.5 * std::erfc(-in[i] * std::numbers::sqrt2 / 2);
        // A step is this much, or that of the smallest numbers.
        const double step = std::max(std::abs(exact) * Epsilon(dtype),
                                     dtype == DType::kFloat16 ? 0x1p-24 : 0x1p-126);
        far += !(std::abs(out[i] - exact) <= step);
      }
      CHECK(far == 0);
    }
  }
}

TEST_CASE("ReLU passes what is positive, in both directions, and a NaN", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Tensor x = Make(worker, {5}, dtype, {-2, -0.0, 0, 3, std::nan("")});
      const auto y = Relu(worker, x);
      REQUIRE_OK(y);
      const auto values = Values(worker, *y);
      CHECK(std::vector<double>(values.begin(), values.begin() + 4) ==
            std::vector<double>{0, 0, 0, 3});
      CHECK(std::isnan(values[4]));
      const Tensor grad = Make(worker, {5}, dtype, {5, 5, 5, 5, 5});
      REQUIRE_OK(ActivateBackward(worker, Activation::kRelu, x, grad, grad));
      CHECK(Values(worker, grad) == std::vector<double>{0, 0, 0, 5, 0});
    }
  }
}

}  // namespace
}  // namespace lockstep
