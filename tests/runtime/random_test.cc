#include "lockstep/runtime/random.h"

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

TEST_CASE("the uniform sequence is SplitMix64's") {
  // The generator's published first outputs for the seed 1234567, shortened to 24 bits.
  CHECK(UniformAt(1234567, 0) == static_cast<float>(6457827717110365317u >> 40) * 0x1p-24f);
  CHECK(UniformAt(1234567, 1) == static_cast<float>(3203168211198807973u >> 40) * 0x1p-24f);
  CHECK(UniformAt(1234567, 2) == static_cast<float>(9817491932198370423u >> 40) * 0x1p-24f);
}

TEST_CASE("every split of a matrix gives the same full matrix") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  const auto whole = *worker->Empty({7, 10}, DType::kFloat32);
  const auto parts = *worker->Zeros({7, 10}, DType::kFloat32);
  REQUIRE_OK(FillUniformBlock(*worker, 3, 0.5f, 0, 0, 10, whole));
  for (const std::int64_t row : {0, 4}) {
    for (const std::int64_t column : {0, 3, 9}) {
      const std::int64_t rows = row == 0 ? 4 : 3;
      const std::int64_t columns = column == 0 ? 3 : column == 3 ? 6 : 1;
      const auto block = *parts.Slice(0, row, rows)->Slice(1, column, columns);
      REQUIRE_OK(FillUniformBlock(*worker, 3, 0.5f, row, column, 10, block));
    }
  }
  float least = 1;
  float most = -1;
  for (int i = 0; i < 70; ++i) {
    CHECK(parts.data<float>()[i] == whole.data<float>()[i]);
    least = std::min(least, whole.data<float>()[i]);
    most = std::max(most, whole.data<float>()[i]);
  }
  CHECK(least >= -0.5f);
  CHECK(least < -0.4f);
  CHECK(most < 0.5f);
  CHECK(most > 0.4f);
}

TEST_CASE("a block outside its matrix is refused") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  const auto out = *worker->Empty({2, 3}, DType::kFloat32);
  CHECK_FALSE(FillUniformBlock(*worker, 1, 1, 0, 8, 10, out).ok());
  CHECK_FALSE(FillUniformBlock(*worker, 1, 1, 0, -1, 10, out).ok());
  CHECK_FALSE(
      FillUniformBlock(*worker, 1, 1, 0, 0, 10, *worker->Empty({2, 3}, DType::kInt32)).ok());
}

}  // namespace
}  // namespace lockstep
