#include "lockstep/runtime/random.h"

#include <algorithm>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::MakeWorker;
using testing::TestDevices;
using testing::Values;

TEST_CASE("the uniform sequence is SplitMix64's") {
  // The generator's published first outputs for the seed 1234567, shortened to 24 bits.
  CHECK(UniformAt(1234567, 0) == static_cast<float>(6457827717110365317u >> 40) * 0x1p-24f);
  CHECK(UniformAt(1234567, 1) == static_cast<float>(3203168211198807973u >> 40) * 0x1p-24f);
  CHECK(UniformAt(1234567, 2) == static_cast<float>(9817491932198370423u >> 40) * 0x1p-24f);
}

TEST_CASE("every split of a matrix gives the same full matrix", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto whole = *worker.Empty({7, 10}, DType::kFloat32);
    const auto parts = *worker.Zeros({7, 10}, DType::kFloat32);
    REQUIRE_OK(FillUniformBlock(worker, 3, 0.5f, 0, 0, 10, whole));
    for (const std::int64_t row : {0, 4}) {
      for (const std::int64_t column : {0, 3, 9}) {
        const std::int64_t rows = row == 0 ? 4 : 3;
        const std::int64_t columns = column == 0 ? 3 : column == 3 ? 6 : 1;
        const auto block = *parts.Slice(0, row, rows)->Slice(1, column, columns);
        REQUIRE_OK(FillUniformBlock(worker, 3, 0.5f, row, column, 10, block));
      }
    }
    const auto values = Values(worker, whole);
    CHECK(Values(worker, parts) == values);
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    CHECK(*least >= -0.5);
    CHECK(*least < -0.4);
    CHECK(*most < 0.5);
    CHECK(*most > 0.4);
  }
}

TEST_CASE("each element of a block is the one of its own place in the full matrix", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto out = *worker.Zeros({3, 8}, DType::kFloat64);
    REQUIRE_OK(FillUniformBlock(worker, 5, 0.25f, 7, 2, 11, *out.Slice(1, 1, 4)));
    const auto values = Values(worker, out);
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 8; ++j) {
        const bool inside = j >= 1 && j < 5;
        const double expected =
            inside ? 0.25 * (2.0 * UniformAt(5, (7 + i) * 11 + 2 + (j - 1)) - 1) : 0;
        CHECK(values[i * 8 + j] == expected);
      }
    }
  }
}

TEST_CASE("every device draws the CPU's numbers, bit for bit, in every type", "[gpu]") {
  const auto draw = [](Worker& worker, DType dtype) {
    const auto out = *worker.Empty({33, 65}, dtype);
    // Positions beyond 2^32, and a bound that no product with is exact.
    REQUIRE_OK(FillUniformBlock(worker, 99, 0.1f, std::int64_t{1} << 30, 5, 1000, out));
    return Values(worker, out);
  };
  Worker cpu = MakeWorker();
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kAllDTypes) {
      if (IsFloating(dtype)) CHECK(draw(worker, dtype) == draw(cpu, dtype));
    }
    REQUIRE_OK(FillUniformBlock(worker, 1, 1, 0, 0, 5, *worker.Empty({0, 5}, DType::kFloat32)));
  }
}

TEST_CASE("a block outside its matrix is refused", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto out = *worker.Empty({2, 3}, DType::kFloat32);
    CHECK_FALSE(FillUniformBlock(worker, 1, 1, 0, 8, 10, out).ok());
    CHECK_FALSE(FillUniformBlock(worker, 1, 1, 0, -1, 10, out).ok());
    CHECK_FALSE(FillUniformBlock(worker, 1, 1, -1, 0, 10, out).ok());
    CHECK_FALSE(FillUniformBlock(worker, 1, 1, 0, 0, 2, out).ok());
    CHECK_FALSE(FillUniformBlock(worker, 1, 1, 0, 0, INT64_MIN, out).ok());
    REQUIRE_OK(FillUniformBlock(worker, 1, 1, 0, 7, 10, out));
    REQUIRE_OK(FillUniformBlock(worker, 1, 1, INT64_MAX - 1, 0, 3, out));
    CHECK_FALSE(
        FillUniformBlock(worker, 1, 1, 0, 0, 10, *worker.Empty({2, 3}, DType::kInt32)).ok());
  }
}

}  // namespace
}  // namespace lockstep
