// Waiting awake: for how long, and when not at all.
#include "lockstep/runtime/patience.h"

#include <chrono>

#include "lockstep/tests/catch.h"

namespace lockstep::internal {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A machine on which a core that is given away comes back after `turn`.
struct FakePlatform {
  static inline Clock::time_point now;
  static inline nanoseconds turn;
  static inline int pauses;
  static inline int yields;

  static void Start(nanoseconds each_turn) {
    now = Clock::time_point(std::chrono::hours(1));
    turn = each_turn;
    pauses = 0;
    yields = 0;
  }
  static Clock::time_point Now() { return now; }
  static void Pause() { ++pauses; }
  static void Yield() {
    now += turn;
    ++yields;
  }
};

constexpr auto kNever = [] { return false; };

bool Await(Patience<FakePlatform>& patience, bool (*done)()) {
  return patience.Await(FakePlatform::Now(), Clock::time_point::max(), done);
}

TEST_CASE("patience gives the core away between polls, and ends with the budget") {
  FakePlatform::Start(microseconds(1));
  Patience<FakePlatform> patience;
  const auto start = FakePlatform::Now();
  CHECK_FALSE(Await(patience, kNever));
  CHECK(FakePlatform::Now() - start == microseconds(50));
  CHECK(FakePlatform::yields == 50);
}

TEST_CASE("patience ends with the poll that succeeds, and looks before it gives the core away") {
  FakePlatform::Start(microseconds(1));
  Patience<FakePlatform> patience;
  CHECK(Await(patience, [] { return true; }));
  CHECK(FakePlatform::yields == 0);
  CHECK(Await(patience, [] { return FakePlatform::yields == 7; }));
  CHECK(FakePlatform::yields == 7);
}

TEST_CASE("while nobody takes the core, patience looks closely before it gives it away again") {
  FakePlatform::Start(nanoseconds(799));
  Patience<FakePlatform> patience({.budget = nanoseconds(3 * 799), .close_polls = 5});
  CHECK_FALSE(Await(patience, kNever));
  CHECK(FakePlatform::yields == 3);
  CHECK(FakePlatform::pauses == 3 * 5);
  CHECK(Await(patience, [] { return FakePlatform::pauses == 17; }));
  CHECK(FakePlatform::yields == 3);
  // Somebody takes it: nothing but polls and turns, in the next wait too.
  FakePlatform::Start(nanoseconds(800));
  CHECK_FALSE(Await(patience, kNever));
  CHECK(FakePlatform::pauses == 5);
  CHECK_FALSE(Await(patience, kNever));
  CHECK(FakePlatform::pauses == 5);
}

TEST_CASE("patience ends with the deadline") {
  FakePlatform::Start(microseconds(1));
  Patience<FakePlatform> patience;
  const auto start = FakePlatform::Now();
  CHECK_FALSE(patience.Await(start, start + microseconds(3), kNever));
  CHECK(FakePlatform::Now() - start == microseconds(3));
}

TEST_CASE("patience without a budget does not look at all") {
  FakePlatform::Start(microseconds(1));
  Patience<FakePlatform> patience({.budget = nanoseconds(0)});
  CHECK_FALSE(Await(patience, [] { return true; }));
}

TEST_CASE("turns of others who wait too are no reason to sleep") {
  FakePlatform::Start(microseconds(100));
  Patience<FakePlatform> patience;
  for (int wait = 0; wait < 3; ++wait) {
    FakePlatform::yields = 0;
    CHECK(Await(patience, [] { return FakePlatform::yields == 0; }));
    CHECK_FALSE(Await(patience, kNever));
    CHECK(FakePlatform::yields == 1);
  }
}

TEST_CASE("after the turn of somebody who computes, waits sleep at once for 32 times as long") {
  FakePlatform::Start(milliseconds(3));
  Patience<FakePlatform> patience;
  CHECK_FALSE(Await(patience, kNever));
  CHECK(FakePlatform::yields == 1);
  FakePlatform::now += milliseconds(32 * 3) - nanoseconds(1);
  CHECK_FALSE(Await(patience, [] { return true; }));
  CHECK(FakePlatform::yields == 1);
  FakePlatform::now += nanoseconds(1);
  CHECK(Await(patience, [] { return true; }));
}

}  // namespace
}  // namespace lockstep::internal
