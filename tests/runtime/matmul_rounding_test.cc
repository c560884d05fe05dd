// How many digits a matrix product keeps.
#include <algorithm>
#include <cmath>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Epsilon;
using testing::Make;
using testing::MakeWorker;
using testing::TestDevices;
using testing::Values;

TEST_CASE(
    "16-bit products are summed in float32 and rounded once, or not at all into a float32 result",
    "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor ones = Make(worker, {1, 4}, DType::kBFloat16, {1, 1, 1, 1});
    const Tensor column = Make(worker, {4, 1}, DType::kBFloat16, {512, 1, 1, 1});
    const Tensor rounded = *worker.Empty({1, 1}, DType::kBFloat16);
    REQUIRE_OK(MatMul(worker, ones, column, rounded));
    CHECK(Values(worker, rounded)[0] == 516);  // each single 1 would be lost beside 512
    const Tensor exact = *worker.Zeros({1, 1}, DType::kFloat32);
    REQUIRE_OK(MatMul(worker, ones, column, exact));
    CHECK(Values(worker, exact)[0] == 515);
    REQUIRE_OK(MatMul(worker, ones, column, exact, {.accumulate = true}));
    CHECK(Values(worker, exact)[0] == 1030);
  }
}

TEST_CASE("float32 products keep all of float32's digits", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor a = *worker.Empty({64, 64}, DType::kFloat32);
    const Tensor b = *worker.Empty({64, 64}, DType::kFloat32);
    const Tensor out = *worker.Empty({64, 64}, DType::kFloat32);
    REQUIRE_OK(Fill(worker, 1 + 0x1p-17, a));
    REQUIRE_OK(Fill(worker, 1, b));
    REQUIRE_OK(MatMul(worker, a, b, out));
    CHECK(Values(worker, out) == std::vector<double>(64 * 64, 64 + 0x1p-11));
  }
}

TEST_CASE("a bias is added before the one rounding to 16 bits, wherever it lies in memory",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      // From here on the type's numbers lie two apart: the product, big + 1, is none of them, and
      // rounds to big.
      const double big = 2 / Epsilon(dtype);
      const Tensor ones = Make(worker, {1, 2}, dtype, {1, 1});
      const Tensor column = Make(worker, {2, 1}, dtype, {big, 1});
      const Tensor out = *worker.Empty({1, 1}, dtype);
      for (const std::int64_t at : {0, 1}) {
        const Tensor minus_big = *Make(worker, {2}, dtype, {-big, -big}).Slice(0, at, 1);
        REQUIRE_OK(MatMul(worker, ones, column, out, {.bias = &minus_big}));
        CHECK(Values(worker, out)[0] == 1);  // 0 if rounded twice
        const Tensor half = *Make(worker, {2}, dtype, {0.5, 0.5}).Slice(0, at, 1);
        REQUIRE_OK(MatMul(worker, ones, column, out, {.bias = &half}));
        CHECK(Values(worker, out)[0] == big + 2);  // big if rounded twice
      }
    }
  }
}

// The largest error of a product of `dtype`, relative to the product. Each element of one operand
// is 1 + `beyond`, of the other 1, and every sum of them is exact.
double ErrorOf(Worker& worker, DType dtype, double beyond) {
  constexpr std::int64_t kSize = 512;
  const Tensor a = *worker.Empty({kSize, kSize}, dtype);
  const Tensor b = *worker.Empty({kSize, kSize}, dtype);
  const Tensor out = *worker.Empty({kSize, kSize}, dtype);
  REQUIRE_OK(Fill(worker, 1 + beyond, a));
  REQUIRE_OK(Fill(worker, 1, b));
  REQUIRE_OK(MatMul(worker, a, b, out));
  return testing::Difference(Values(worker, out),
                             std::vector<double>(kSize * kSize, kSize * (1 + beyond)));
}

TEST_CASE("TF32 costs float32 products digits on a GPU, while the worker allows it, and no others",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    CHECK_FALSE(worker.allow_tf32());
    // A quarter of the step between TF32's numbers.
    constexpr double kBeyond = 0x1p-12;
    CHECK(ErrorOf(worker, DType::kFloat32, kBeyond) == 0);
    worker.set_allow_tf32(true);
    CHECK(worker.allow_tf32());
    const double error = ErrorOf(worker, DType::kFloat32, kBeyond);
    if (device.is_cpu()) {
      CHECK(error == 0);
    } else {
      CHECK(error > Epsilon(DType::kFloat32));
      CHECK(error < 0x1p-10);
    }
    CHECK(ErrorOf(worker, DType::kFloat64, 0x1p-40) == 0);
    CHECK(ErrorOf(worker, DType::kFloat16, 0) == 0);
    worker.set_allow_tf32(false);
    CHECK(ErrorOf(worker, DType::kFloat32, kBeyond) == 0);
  }
}

}  // namespace
}  // namespace lockstep
