#include "lockstep/runtime/status.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

const absl::Status kRefused = absl::NotFoundError("refused");

// The number that it is called with, or an error below 0; counts its calls.
int num_calls = 0;
absl::StatusOr<int> Number(int number) {
  ++num_calls;
  if (number < 0) return kRefused;
  return number;
}

template <typename A, typename B>
absl::StatusOr<std::pair<A, B>> MakePair(A a, B b) {
  return std::pair(a, b);
}

TEST_CASE("an assignment behind an if or an else without braces is made where that is taken") {
  const auto choose = [](bool first, int a, int b) -> absl::StatusOr<int> {
    int x = 7;
    if (first)
      LOCKSTEP_ASSIGN_OR_RETURN(x, Number(a));
    else
      LOCKSTEP_ASSIGN_OR_RETURN(x, Number(b));
    if (first) LOCKSTEP_ASSIGN_OR_RETURN(x, Number(x + 1));
    return x;
  };
  num_calls = 0;
  CHECK(*choose(true, 1, -1) == 2);
  CHECK(num_calls == 2);
  CHECK(*choose(false, -1, 5) == 5);
  CHECK(num_calls == 3);
  CHECK(choose(true, -1, 1).status() == kRefused);
  CHECK(choose(false, 1, -1).status() == kRefused);
}

TEST_CASE("a return behind an if without braces leaves the else to that if") {
  const auto choose = [](bool first, const absl::Status& status) -> absl::Status {
    bool was_else = false;
    if (first)
      LOCKSTEP_RETURN_IF_ERROR(status);
    else
      was_else = true;
    return was_else ? absl::DataLossError("else") : absl::OkStatus();
  };
  CHECK(choose(true, kRefused) == kRefused);
  CHECK(choose(true, absl::OkStatus()) == absl::OkStatus());
  CHECK(choose(false, kRefused) == absl::DataLossError("else"));
}

TEST_CASE("an assignment is the whole body of a loop, and stands behind a case") {
  const auto last = [](int from, int to) -> absl::StatusOr<int> {
    int x = 0;
    for (int i = from; i >= to; --i) LOCKSTEP_ASSIGN_OR_RETURN(x, Number(i));
    return x;
  };
  num_calls = 0;
  CHECK(*last(5, 2) == 2);
  CHECK(num_calls == 4);
  CHECK(last(1, -3).status() == kRefused);
  CHECK(num_calls == 7);
  const auto by_case = [](int which) -> absl::StatusOr<int> {
    int x = 0;
    switch (which) {
      case 0:
        LOCKSTEP_ASSIGN_OR_RETURN(x, Number(10));
        break;
      case 1:
        LOCKSTEP_RETURN_IF_ERROR(kRefused);
        break;
      default:
        LOCKSTEP_ASSIGN_OR_RETURN(x, Number(30));
    }
    return x;
  };
  CHECK(*by_case(0) == 10);
  CHECK(by_case(1).status() == kRefused);
  CHECK(*by_case(2) == 30);
}

TEST_CASE("a target may declare, be moved into, hold commas, or begin with parentheses") {
  const auto all = []() -> absl::StatusOr<int> {
    const auto owned = [](int value) -> absl::StatusOr<std::unique_ptr<int>> {
      return std::make_unique<int>(value);
    };
    LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<int> moved, owned(1));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto& kept, owned(2));
    LOCKSTEP_ASSIGN_OR_RETURN((auto [a, b]), MakePair<int, int>(10, 20));
    LOCKSTEP_ASSIGN_OR_RETURN((const std::pair<int, int> both), MakePair<int, int>(30, 40));
    std::pair<int, int> last;
    LOCKSTEP_ASSIGN_OR_RETURN((*&last).second, Number(300));
    LOCKSTEP_ASSIGN_OR_RETURN((last.first), Number(100));
    int sum = *moved + *kept + a + b + both.first + both.second + last.first + last.second;
    LOCKSTEP_ASSIGN_OR_RETURN(moved, owned(4000));
    return sum + *moved;
  };
  CHECK(*all() == 4503);
}

TEST_CASE("an expression may hold lambdas that use the macros themselves, and fail in them") {
  const auto nested = [](int outer, int inner) -> absl::StatusOr<int> {
    LOCKSTEP_ASSIGN_OR_RETURN(const int x, [&]() -> absl::StatusOr<int> {
      LOCKSTEP_RETURN_IF_ERROR([&]() -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(const int y, Number(inner));
        return y > 0 ? absl::OkStatus() : absl::DataLossError("none");
      }());
      LOCKSTEP_ASSIGN_OR_RETURN(const int z, Number(outer));
      return z + 1;
    }());
    return x;
  };
  CHECK(*nested(1, 1) == 2);
  CHECK(nested(1, 0).status() == absl::DataLossError("none"));
  CHECK(nested(-1, 1).status() == kRefused);
  CHECK(nested(1, -1).status() == kRefused);
}

TEST_CASE("memory that runs out becomes a status without a text, and other exceptions go on") {
  const auto full = internal::OutOfMemoryAsStatus(
      []() -> absl::StatusOr<std::unique_ptr<int>> { throw std::bad_alloc(); });
  CHECK(internal::IsOutOfMemory(full.status()));
  CHECK(internal::IsOutOfMemory(
      internal::OutOfMemoryAsStatus([]() -> absl::Status { throw std::bad_array_new_length(); })));
  CHECK(internal::OutOfMemoryAsStatus([] { return kRefused; }) == kRefused);
  CHECK_FALSE(internal::IsOutOfMemory(absl::ResourceExhaustedError("with a text")));
  CHECK_FALSE(internal::IsOutOfMemory(absl::OkStatus()));
  CHECK(**internal::OutOfMemoryAsStatus([]() -> absl::StatusOr<std::unique_ptr<int>> {
    return std::make_unique<int>(3);
  }) == 3);
  CHECK_THROWS_AS(internal::OutOfMemoryAsStatus([]() -> absl::Status { throw std::string(); }),
                  std::string);
}

}  // namespace
}  // namespace lockstep
