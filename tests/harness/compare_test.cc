// ExpectClose and its kin: what they find, how they tell it, and what they refuse to read.
#include "lockstep/tests/harness/compare.h"

#include <cmath>
#include <limits>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"

namespace lockstep::testing {
namespace {

using Code = absl::StatusCode;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr DType kFloating[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64};

Worker OnCpu() { return *Worker::Adopt(0, 1, Device::Cpu()); }

// A flat tensor of these values.
Tensor Of(Worker& worker, DType dtype, const std::vector<double>& values) {
  const Tensor tensor = *worker.Empty({static_cast<std::int64_t>(values.size())}, dtype);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    Fill(worker, values[static_cast<std::size_t>(i)], *tensor.Slice(0, i, 1)).IgnoreError();
  }
  return tensor;
}
Tensor Ints(std::vector<std::int64_t>& values) {
  return Tensor::View(values.data(), {static_cast<std::int64_t>(values.size())}, DType::kInt64);
}

TEST_CASE("a difference is told by its first index, in units of the last place") {
  Worker worker = OnCpu();
  float is[] = {1, 2, 3, 4, 5, 6};
  float should_be[] = {1, 2, 3, 4, 5, 6};
  const Tensor actual = Tensor::View(is, {2, 3}, DType::kFloat32);
  const Tensor expected = Tensor::View(should_be, {2, 3}, DType::kFloat32);
  REQUIRE_OK(ExpectClose(worker, "y", actual, expected, 0));
  is[4] = std::nextafter(std::nextafter(5.0f, 9.0f), 9.0f);
  REQUIRE_OK(ExpectClose(worker, "y", actual, expected, 2));
  const absl::Status far = ExpectClose(worker, "y", actual, expected, 1);
  CHECK(far.code() == Code::kInternal);
  CHECK(Says(far,
             "y: element [1, 1] is 5.000001, expected 5; 1 of 6 elements differ by more than "
             "1 ULP of the largest expected element (6), by up to 2, which is 9.53674e-07"));
  is[5] = 7;
  CHECK(
      Says(ExpectClose(worker, "y", actual, expected, 1), "[1, 1] is 5.000001, expected 5; 2 of"));
  const auto turned = actual.Reshape({3, 2});
  REQUIRE_OK(turned);
  CHECK(Says(ExpectClose(worker, "y", *turned, expected, 9), "y: is float32 [3, 2] on cpu"));
  const auto narrow = actual.Slice(1, 0, 2);
  REQUIRE_OK(narrow);
  CHECK(Says(ExpectClose(worker, "y", *narrow, expected, 2), "expected float32 [2, 3]"));
}

TEST_CASE("elements of every type are compared, from the first to the last") {
  Worker worker = OnCpu();
  for (const DType dtype : kAllDTypes) {
    INFO(Name(dtype));
    const Tensor expected = Of(worker, dtype, {1, 2, 3, 4});
    REQUIRE_OK(ExpectClose(worker, "y", Of(worker, dtype, {1, 2, 3, 4}), expected, 0));
    CHECK(Says(ExpectClose(worker, "y", Of(worker, dtype, {2, 2, 3, 4}), expected, 0),
               "y: element [0] is 2, expected 1; 1 of 4"));
    CHECK(Says(ExpectClose(worker, "y", Of(worker, dtype, {1, 2, 3, 6}), expected, 0),
               "y: element [3] is 6, expected 4; 1 of 4"));
    CHECK(Says(ExpectClose(worker, "y", Of(worker, dtype, {1, 2, 3, -4}), expected, 0), "is -4"));
    const DType other = dtype == DType::kFloat32 ? DType::kFloat64 : DType::kFloat32;
    CHECK(!ExpectClose(worker, "y", Of(worker, other, {1, 2, 3, 4}), expected, 9).ok());
  }
}

TEST_CASE("a unit is the distance of neighbours at the largest expected element, in each type") {
  Worker worker = OnCpu();
  // At 6, which lies between 4 and 8.
  const double units[] = {0x1p-21, 0x1p-8, 0x1p-5, 0x1p-50};
  for (int i = 0; i < 4; ++i) {
    INFO(Name(kFloating[i]));
    const Tensor expected = Of(worker, kFloating[i], {-6, 1});
    const Tensor actual = Of(worker, kFloating[i], {-6, 1 + 2 * units[i]});
    REQUIRE_OK(ExpectClose(worker, "y", actual, expected, 2));
    CHECK(Says(ExpectClose(worker, "y", actual, expected, 1.9), "by up to 2, which is"));
  }
}

TEST_CASE("below the normal numbers a unit is the least number, in each type") {
  Worker worker = OnCpu();
  const int exponents[] = {-149, -24, -133, -1074};
  for (int i = 0; i < 4; ++i) {
    INFO(Name(kFloating[i]));
    const double unit = std::ldexp(1, exponents[i]);
    const Tensor expected = Of(worker, kFloating[i], {4 * unit});
    const Tensor actual = Of(worker, kFloating[i], {6 * unit});
    REQUIRE_OK(ExpectClose(worker, "y", actual, expected, 2));
    CHECK(!ExpectClose(worker, "y", actual, expected, 1.9).ok());
  }
}

TEST_CASE("NaN and infinity are equal to themselves alone, and widen no tolerance") {
  Worker worker = OnCpu();
  const struct {
    double is;
    double should_be;
    bool passes;
  } cases[] = {{kNan, 1, false}, {1, kNan, false},    {kNan, kNan, true}, {kInf, 1, false},
               {1, kInf, false}, {-kInf, 1, false},   {kInf, kInf, true}, {kInf, -kInf, false},
               {kNan, 0, false}, {kNan, kInf, false}, {kInf, kNan, false}};
  for (const DType dtype : kFloating) {
    for (const auto& [is, should_be, passes] : cases) {
      INFO(Name(dtype) << ": " << is << " for " << should_be);
      const absl::Status status = ExpectClose(worker, "y", Of(worker, dtype, {1, is}),
                                              Of(worker, dtype, {1, should_be}), 1e30);
      CHECK(status.ok() == passes);
      CHECK((passes || Says(status, "1 of 2 elements differ")));
    }
    CHECK(!ExpectClose(worker, "y", Of(worker, dtype, {kInf, 1.5}), Of(worker, dtype, {kInf, 1}), 4)
               .ok());
  }
  // A distance that overflows.
  CHECK(!ExpectClose(worker, "y", Of(worker, DType::kFloat64, {1e308}),
                     Of(worker, DType::kFloat64, {-1e308}), 1e300)
             .ok());
}

TEST_CASE("a number of units that is negative, infinite or none is refused") {
  Worker worker = OnCpu();
  const Tensor x = Of(worker, DType::kFloat32, {1});
  for (const double ulps : {-1.0, -1e-9, kInf, kNan}) {
    const absl::Status status = ExpectClose(worker, "y", x, x, ulps);
    INFO(ulps);
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, "it must be a finite number, and at least 0"));
  }
}

TEST_CASE("integers are compared as integers, also where a double cannot tell them apart") {
  Worker worker = OnCpu();
  constexpr std::int64_t kTwo53 = std::int64_t{1} << 53;
  std::vector<std::int64_t> is = {7, kTwo53 + 1};
  std::vector<std::int64_t> should_be = {7, kTwo53};
  for (const double ulps : {0.0, 0.9}) {
    CHECK(Says(ExpectClose(worker, "n", Ints(is), Ints(should_be), ulps),
               "n: element [1] is 9007199254740993, expected 9007199254740992; 1 of 2 elements "
               "differ"));
    CHECK(!ExpectClose(worker, "n", Ints(should_be), Ints(is), ulps).ok());
  }
  REQUIRE_OK(ExpectClose(worker, "n", Ints(is), Ints(should_be), 1));
  is = {INT64_MIN};
  should_be = {INT64_MAX};
  CHECK(!ExpectClose(worker, "n", Ints(is), Ints(should_be), 1e19).ok());
  REQUIRE_OK(ExpectClose(worker, "n", Ints(is), Ints(should_be), 0x1p64));
}

TEST_CASE("where 0 is all that is expected, the distance is told as it is") {
  Worker worker = OnCpu();
  for (const DType dtype : kFloating) {
    const Tensor zeros = Of(worker, dtype, {0, 0, 0});
    const absl::Status status =
        ExpectClose(worker, "y", Of(worker, dtype, {0, 0.25, -0.5}), zeros, 4);
    INFO(status.ToString());
    CHECK(status.code() == Code::kInternal);
    CHECK(
        Says(status, "y: element [1] is 0.25, expected 0; 2 of 3 elements differ, by up to 0.5,"));
    CHECK(!Says(status, "e+"));
    REQUIRE_OK(ExpectClose(worker, "y", Of(worker, dtype, {0, -0.0, 0}), zeros, 0));
  }
  const Tensor least = Of(worker, DType::kFloat32, {0x1p-149});
  REQUIRE_OK(ExpectClose(worker, "y", least, Of(worker, DType::kFloat32, {0}), 1));
  CHECK(!ExpectClose(worker, "y", least, Of(worker, DType::kFloat32, {0}), 0.5).ok());
}

TEST_CASE("what cannot be read is refused before anything is") {
  Worker worker = OnCpu();
  double memory[4] = {};
  const struct {
    Tensor tensor;
    const char* says;
  } cases[] = {
      {Tensor::View(nullptr, {2}, DType::kFloat32), "null pointer"},
      {Tensor::View(memory, {-1}, DType::kFloat32), "extents are at least 0"},
      {Tensor::View(memory, {0, -1}, DType::kFloat32), "extents are at least 0"},
      {Tensor::View(memory, {std::int64_t{1} << 62}, DType::kFloat64), "more bytes than"},
      {Tensor::View(reinterpret_cast<char*>(memory) + 2, {2}, DType::kFloat32), "multiple of 4"},
      {Tensor::View(memory, {2}, DType::kFloat32, Device::Cuda(0)), "it must be on cpu"},
  };
  for (const auto& [tensor, says] : cases) {
    INFO(says);
    const absl::Status status = ToDoubles(worker, tensor).status();
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, says));
    CHECK(Says(ToHost(worker, tensor).status(), says));
    const absl::Status compared = ExpectClose(worker, "y", tensor, tensor, 0);
    CHECK(compared.code() == Code::kInvalidArgument);
    CHECK(Says(compared, "y: actual: "));
    CHECK(Says(compared, says));
  }
  const Tensor good = Tensor::View(memory, {2}, DType::kFloat32);
  CHECK(Says(ExpectClose(worker, "y", good, cases[0].tensor, 0), "y: expected: "));
  const Tensor none = Tensor::View(nullptr, {3, 0}, DType::kFloat32);
  REQUIRE_OK(ExpectClose(worker, "y", none, none, 0));
}

TEST_CASE("elements come as doubles in row-major order, of every type and stride") {
  Worker worker = OnCpu();
  for (const DType dtype : kAllDTypes) {
    const Tensor flat = Of(worker, dtype, {1, -2, 3, 4, 5, 6});
    const auto whole = flat.Reshape({2, 3});
    REQUIRE_OK(whole);
    const auto right = whole->Slice(1, 1, 2);
    REQUIRE_OK(right);
    const auto doubles = ToDoubles(worker, *right);
    REQUIRE_OK(doubles);
    CHECK(*doubles == std::vector<double>{-2, 3, 5, 6});
    const auto host = ToHost(worker, *right);
    REQUIRE_OK(host);
    CHECK(host->is_contiguous());
    CHECK(host->shape() == Shape{2, 2});
    CHECK(host->dtype() == dtype);
    CHECK(!ExpectClose(worker, "y", *right, *whole->Slice(1, 0, 2), 0).ok());
    REQUIRE_OK(ExpectClose(worker, "y", *right, *host, 0));
  }
  double one = 7;
  const auto scalar = ToDoubles(worker, Tensor::View(&one, {}, DType::kFloat64));
  REQUIRE_OK(scalar);
  CHECK(*scalar == std::vector<double>{7});
}

}  // namespace
}  // namespace lockstep::testing
