// What CheckGradient refuses, on every rank and before it calls the loss.
#include <atomic>
#include <limits>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/gradient_check.h"
#include "lockstep/tests/harness/run_ranks.h"

namespace lockstep::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Arguments {
  Tensor x;
  Tensor gradient;
  GradientCheckOptions options = {};
};

// Two ranks, each with arguments of its own. Every rank must refuse them with the same text.
absl::Status Refusal(const Arguments (&arguments)[2]) {
  std::atomic<int> calls = 0;
  std::vector<absl::Status> each;
  const absl::Status status = RunRanks(
      {.world_size = 2},
      [&](Worker& worker, Communicator& comm) {
        const Arguments& mine = arguments[comm.rank()];
        const auto loss = [&]() -> absl::StatusOr<double> { return ++calls; };
        return CheckGradient(worker, comm, "f", mine.x, mine.gradient, loss, mine.options);
      },
      &each);
  CHECK(calls == 0);
  REQUIRE(each.size() == 2);
  CHECK(each[0] == each[1]);
  CHECK(each[0].code() == absl::StatusCode::kInvalidArgument);
  return each[0];
}

TEST_CASE("options of the gradient check that cannot be are refused, naming the rank") {
  float memory[2][8] = {};
  const Tensor x = Tensor::View(memory[0], {4}, DType::kFloat32);
  const Tensor gradient = Tensor::View(memory[1], {4}, DType::kFloat32);
  const struct {
    GradientCheckOptions options;
    const char* says;
  } cases[] = {
      {{.num_elements = 0}, "num_elements is 0; it must be at least 1"},
      {{.num_elements = -5}, "num_elements is -5"},
      {{.step = 0}, "step is 0; it must be finite, and more than 0"},
      {{.step = -1e-2}, "step is -0.01"},
      {{.step = kInf}, "step is inf"},
      {{.step = kNan}, "step is nan"},
      {{.tolerance = 0}, "tolerance is 0; it must be more than 0, and less than 1"},
      {{.tolerance = -1}, "tolerance is -1"},
      {{.tolerance = 1}, "tolerance is 1"},
      {{.tolerance = kInf}, "tolerance is inf"},
      {{.tolerance = kNan}, "tolerance is nan"},
  };
  for (const auto& [options, says] : cases) {
    const Arguments good = {x, gradient};
    const Arguments bad = {x, gradient, options};
    INFO(says);
    CHECK(Says(Refusal({bad, good}), absl::StrCat("f: on rank 0 ", says)));
    CHECK(Says(Refusal({good, bad}), absl::StrCat("f: on rank 1 ", says)));
  }
}

TEST_CASE("tensors that the gradient check cannot take are refused, naming the rank") {
  double memory[2][400] = {};
  const auto of = [&](int which, Shape shape, DType dtype = DType::kFloat32) {
    return Tensor::View(memory[which], std::move(shape), dtype);
  };
  const Tensor x = of(0, {4});
  const Tensor gradient = of(1, {4});
  const Tensor strided = *of(0, {4, 2}).Slice(1, 0, 1);
  const Tensor strided_gradient = *of(1, {4, 2}).Slice(1, 0, 1);
  const struct {
    Tensor x;
    Tensor gradient;
    const char* says;
  } cases[] = {
      {x, of(1, {3}), "x is float32 [4] on cpu and gradient is float32 [3] on cpu; they must"},
      {x, of(1, {400}), "gradient is float32 [400] on cpu; they must have one shape"},
      {x, of(1, {2, 2}), "gradient is float32 [2, 2] on cpu; they must have one shape"},
      {x, of(1, {4}, DType::kFloat64), "gradient is float64 [4] on cpu; they must have one shape"},
      {of(0, {4}, DType::kInt32), of(1, {4}, DType::kInt32), "one floating type"},
      {of(0, {4}, DType::kInt64), of(1, {4}, DType::kInt64), "one floating type"},
      {strided, of(1, {4, 1}), "x is float32 [4, 1] on cpu and strided; it must be contiguous"},
      {of(0, {4, 1}), strided_gradient, "gradient is float32 [4, 1] on cpu and strided"},
      {Tensor::View(nullptr, {4}, DType::kFloat32), gradient, "null pointer"},
      {x, Tensor::View(nullptr, {4}, DType::kFloat32), "null pointer"},
      {of(0, {-4}), of(1, {-4}), "extents are at least 0"},
      {Tensor::View(memory[0], {4}, DType::kFloat32, Device::Cuda(0)), gradient,
       "x is float32 [4] on cuda:0; it must be contiguous, on cpu"},
      {x, Tensor::View(memory[1], {4}, DType::kFloat32, Device::Cuda(0)),
       "gradient is float32 [4] on cuda:0; it must"},
  };
  for (const auto& [bad_x, bad_gradient, says] : cases) {
    const Arguments good = {x, gradient};
    const Arguments bad = {bad_x, bad_gradient};
    for (const int rank : {0, 1}) {
      const absl::Status status = rank == 0 ? Refusal({bad, good}) : Refusal({good, bad});
      INFO(status.ToString());
      CHECK(Says(status, says));
      CHECK(Says(status, absl::StrCat("f: on rank ", rank, " ")));
    }
  }
}

TEST_CASE("a refusal that is longer than what ranks tell each other is cut") {
  double memory[2] = {};
  const Arguments bad = {Tensor::View(&memory[0], Shape(400, 1), DType::kFloat32),
                         Tensor::View(&memory[1], Shape(399, 1), DType::kFloat32)};
  const absl::Status status = Refusal({bad, bad});
  CHECK(Says(status, "f: on rank 0 x is float32 [1, 1, 1"));
  CHECK(status.message().size() == 3 + 1000);
}

TEST_CASE("what the ranks of a gradient check give differently is refused, naming both") {
  double memory[4][8] = {};
  const auto arguments = [&](int rank, std::int64_t size, DType dtype,
                             GradientCheckOptions options) -> Arguments {
    return {Tensor::View(memory[2 * rank], {size}, dtype),
            Tensor::View(memory[2 * rank + 1], {size}, dtype), options};
  };
  const Arguments first = arguments(0, 4, DType::kFloat32, {});
  const struct {
    Arguments second;
    const char* says;
  } cases[] = {
      {arguments(1, 4, DType::kFloat32, {.replicated = true}),
       "replicated: 0 on rank 0, 1 on rank 1"},
      {arguments(1, 4, DType::kFloat32, {.num_elements = 4}),
       "num_elements: 16 on rank 0, 4 on rank 1"},
      {arguments(1, 4, DType::kFloat32, {.step = 1e-3}), "step: 0.01 on rank 0, 0.001 on rank 1"},
      {arguments(1, 4, DType::kFloat32, {.tolerance = 0.5}), "tolerance: 0.01 on rank 0, 0.5 on"},
      {arguments(1, 4, DType::kFloat64, {}), "element type: float32 on rank 0, float64 on rank 1"},
  };
  for (const auto& [second, says] : cases) {
    CHECK(Says(Refusal({first, second}), absl::StrCat("f: the ranks differ in ", says)));
  }
  const Arguments replicated = arguments(0, 4, DType::kFloat32, {.replicated = true});
  CHECK(Says(Refusal({replicated, arguments(1, 5, DType::kFloat32, {.replicated = true})}),
             "f: the ranks differ in number of elements: 4 on rank 0, 5 on rank 1"));
}

}  // namespace
}  // namespace lockstep::testing
