// CheckGradient: which wrong gradients it finds, on which rank and element.
#include "lockstep/tests/harness/gradient_check.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/run_ranks.h"

namespace lockstep::testing {
namespace {

// The sum over the ranks of the squares of their x, whose gradient is 2 x.
struct Squares {
  DType dtype = DType::kFloat32;
  // Elements of each rank's x, which counts 1, 2, 3, ...
  std::vector<std::int64_t> sizes = {4, 4};
  GradientCheckOptions options = {};
  // Which gradient is wrong; no rank's if -1.
  int wrong_rank = -1;
  std::int64_t wrong_index = 0;
};

absl::Status CheckSquares(Worker& worker, Communicator& comm, const Squares& squares, int& calls) {
  const std::int64_t size = squares.sizes[static_cast<std::size_t>(comm.rank())];
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({size}, squares.dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor gradient, worker.Empty({size}, squares.dtype));
  for (std::int64_t i = 0; i < size; ++i) {
    const bool wrong = comm.rank() == squares.wrong_rank && i == squares.wrong_index;
    const auto value = static_cast<double>(i + 1);
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor of_x, x.Slice(0, i, 1));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor of_gradient, gradient.Slice(0, i, 1));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, value, of_x));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, wrong ? -value : 2 * value, of_gradient));
  }
  const auto loss = [&]() -> absl::StatusOr<double> {
    ++calls;
    LOCKSTEP_ASSIGN_OR_RETURN(const auto values, ToDoubles(worker, x));
    double sum = 0;
    for (const double value : values) sum += value * value;
    if (squares.options.replicated) return sum;
    const Tensor total = Tensor::View(&sum, {1}, DType::kFloat64);
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(total, total));
    return sum;
  };
  return CheckGradient(worker, comm, "squares", x, gradient, loss, squares.options);
}

// `calls`: how often each rank's loss was called.
absl::Status Run(const Squares& squares, std::vector<absl::Status>* each = nullptr,
                 std::vector<int>* calls = nullptr) {
  std::vector<int> counted(squares.sizes.size());
  const absl::Status status = RunRanks(
      {.world_size = static_cast<int>(squares.sizes.size())},
      [&](Worker& worker, Communicator& comm) {
        return CheckSquares(worker, comm, squares, counted[static_cast<std::size_t>(comm.rank())]);
      },
      each);
  if (calls != nullptr) *calls = counted;
  return status;
}

TEST_CASE("a right gradient passes, a wrong one is told by its rank and element on every rank") {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const bool replicated : {false, true}) {
      Squares squares = {.dtype = dtype, .options = {.replicated = replicated}};
      squares.sizes =
          replicated ? std::vector<std::int64_t>{3, 3, 3} : std::vector<std::int64_t>{1, 2, 3};
      REQUIRE_OK(Run(squares));
      for (int rank = 0; rank < 3; ++rank) {
        for (std::int64_t i = 0; i < squares.sizes[static_cast<std::size_t>(rank)]; ++i) {
          squares.wrong_rank = rank;
          squares.wrong_index = i;
          std::vector<absl::Status> each;
          CHECK(Run(squares, &each).code() == absl::StatusCode::kInternal);
          for (const absl::Status& status : each) {
            INFO(Name(dtype) << ", replicated " << replicated << ": " << status.ToString());
            CHECK(Says(status, absl::StrCat("squares: on rank ", rank, " the gradient of element ",
                                            i, " of ")));
            CHECK(Says(status, absl::StrCat(" is ", -(i + 1), ", and the difference quotient ")));
          }
        }
      }
    }
  }
}

TEST_CASE("elements are tried from the first on, spread evenly over x") {
  Squares squares = {.sizes = {100}};
  for (int trial = 0; trial < 16; ++trial) {
    squares.wrong_rank = 0;
    squares.wrong_index = trial * 100 / 16;
    CHECK(Says(Run(squares), absl::StrCat("element ", squares.wrong_index, " of ")));
  }
  squares.wrong_index = 1;
  REQUIRE_OK(Run(squares));
  squares.options.num_elements = 100;
  squares.wrong_index = 99;
  CHECK(Says(Run(squares), "element 99 of "));
  squares.options.num_elements = 1000;
  CHECK(Says(Run(squares), "element 99 of "));
}

TEST_CASE("the loss is called twice an element, and equally often on every rank") {
  const struct {
    Squares squares;
    int calls;
  } cases[] = {
      {{.sizes = {1, 0, 5}}, 12},
      {{.sizes = {40, 2}}, 36},
      {{.sizes = {5, 5}, .options = {.replicated = true}}, 10},
      {{.sizes = {5, 5}, .options = {.replicated = true, .num_elements = 3}}, 6},
      {{.sizes = {0, 0}}, 0},
  };
  for (const auto& [squares, expected] : cases) {
    std::vector<int> calls;
    REQUIRE_OK(Run(squares, nullptr, &calls));
    for (const int of_rank : calls) CHECK(of_rank == expected);
  }
}

TEST_CASE("a part of one element is checked, beside ranks that have none") {
  Squares squares = {.sizes = {0, 1, 0}};
  REQUIRE_OK(Run(squares));
  squares.wrong_rank = 1;
  CHECK(Says(Run(squares), "on rank 1 the gradient of element 0"));
}

TEST_CASE("differences are within the tolerance, relative to the largest quotient or 1") {
  const auto run = [](double error, double tolerance) {
    return RunRanks({.world_size = 1}, [&](Worker& worker, Communicator& comm) {
      double at[] = {0, 0};
      double claimed[] = {100 + error, 0};
      const Tensor x = Tensor::View(at, {2}, DType::kFloat64);
      const Tensor gradient = Tensor::View(claimed, {2}, DType::kFloat64);
      const auto loss = [&]() -> absl::StatusOr<double> { return 100 * at[0]; };
      return CheckGradient(worker, comm, "line", x, gradient, loss, {.tolerance = tolerance});
    });
  };
  REQUIRE_OK(run(0.99, 1e-2));
  REQUIRE_OK(run(-0.99, 1e-2));
  CHECK(!run(1.01, 1e-2).ok());
  CHECK(!run(-1.01, 1e-2).ok());
  CHECK(!run(0.2, 1e-3).ok());
}

TEST_CASE("the quotient is taken over the way that x went in its type") {
  // In bfloat16 a step of 0.01 from 1 goes to 0.98828125 and 1.0078125.
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Squares squares = {.dtype = dtype, .sizes = {1, 1}};
    REQUIRE_OK(Run(squares));
    squares.wrong_rank = 1;
    CHECK(Says(Run(squares), "on rank 1 the gradient of element 0"));
  }
}

// Four elements whose loss is what `loss` makes of the first, with `claimed` as every gradient.
absl::Status CheckFirst(float at, float claimed, double step, double (*loss_of)(double)) {
  return RunRanks({.world_size = 2}, [&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({4}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor gradient, worker.Zeros({4}, DType::kFloat32));
    x.data<float>()[0] = at;
    gradient.data<float>()[0] = claimed;
    const auto loss = [&]() -> absl::StatusOr<double> { return loss_of(*x.data<float>()); };
    return CheckGradient(worker, comm, "f", x, gradient, loss, {.replicated = true, .step = step});
  });
}

TEST_CASE("a gradient that cannot be checked fails, and says why") {
  const auto line = [](double x) { return x; };
  const auto exp = [](double x) { return static_cast<double>(std::exp(static_cast<float>(x))); };
  const auto nan = [](double x) { return x > 1 ? NAN : 0.0; };
  const auto far = [](double x) { return x > 1 ? 1.7e308 : -1.7e308; };
  const struct {
    absl::Status status;
    const char* says;
  } cases[] = {
      {CheckFirst(88.72F, 12345, 1e-2, exp),
       "the loss is 3.35941e+38 and inf with element 0 at 88.71"},
      {CheckFirst(1, 0, 1e-2, nan), "the loss is 0 and nan with element 0"},
      {CheckFirst(1, 0, 1e-2, far), "the difference quotient is inf, of the losses -1.7e+308"},
      {CheckFirst(1, 0, 1e-2, [](double x) { return x > 1 ? 1e308 : 0.0; }),
       "the difference quotient is inf"},
      {CheckFirst(1e8F, 0, 1e-2, line),
       "a step of 0.01 from 1e+08 puts element 0 at 1e+08 and 1e+08"},
      {CheckFirst(3e38F, 0, 1e38, [](double) { return 0.0; }), "a step of 1e+38"},
      {CheckFirst(NAN, 0, 1e-2, [](double) { return 0.0; }), "a step of 0.01 from nan"},
      {CheckFirst(1, NAN, 1e-2, line), "the gradient of element 0 of float32 [4] on cpu is nan"},
      {CheckFirst(1, INFINITY, 1e-2, line),
       "the gradient of element 0 of float32 [4] on cpu is inf"},
  };
  REQUIRE_OK(CheckFirst(1, 1, 1e-2, line));
  for (const auto& [status, says] : cases) {
    INFO(says << ": " << status.ToString());
    CHECK(status.code() == absl::StatusCode::kInternal);
    CHECK(Says(status, says));
  }
}

TEST_CASE("a loss that is not finite on a rank that moves nothing fails on every rank") {
  std::vector<absl::Status> each;
  const absl::Status status = RunRanks(
      {.world_size = 2},
      [](Worker& worker, Communicator& comm) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({1 - comm.rank()}, DType::kFloat32));
        const auto loss = [&]() -> absl::StatusOr<double> { return comm.rank() == 1 ? NAN : 0; };
        return CheckGradient(worker, comm, "f", x, x, loss);
      },
      &each);
  for (const absl::Status& of_rank : each) {
    CHECK(Says(of_rank,
               "f: the gradient cannot be checked: on rank 1 the loss is nan and nan with an "
               "element of another rank"));
  }
}

TEST_CASE("x is put back bit for bit, also when the loss fails or throws") {
  const std::vector<float> before = {-0.0F, 0.1F, 1e-42F, 3};
  // Which call of the loss ends it, and how.
  for (const int last : {0, 1, 2, 3, 6}) {
    for (const bool throws : {false, true}) {
      std::vector<float> x = before;
      const absl::Status status =
          RunRanks({.world_size = 1}, [&](Worker& worker, Communicator& comm) {
            std::vector<float> zeros(4);
            int calls = 0;
            const auto loss = [&]() -> absl::StatusOr<double> {
              if (++calls == last && throws) throw std::runtime_error("the loss threw");
              if (calls == last) return absl::NotFoundError("the loss failed");
              return 0;
            };
            return CheckGradient(worker, comm, "f", Tensor::View(x.data(), {4}, DType::kFloat32),
                                 Tensor::View(zeros.data(), {4}, DType::kFloat32), loss);
          });
      INFO("call " << last << ": " << status.ToString());
      CHECK(std::memcmp(x.data(), before.data(), 16) == 0);
      CHECK(status.ok() == (last == 0));
      if (last > 0)
        CHECK(Says(status, throws ? "the loss threw" : "NOT_FOUND: rank 0: f: the loss failed"));
    }
  }
}

}  // namespace
}  // namespace lockstep::testing
