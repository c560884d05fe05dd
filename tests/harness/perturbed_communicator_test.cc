// What a perturbed end does to its calls, seen from behind it: faults.
#include "lockstep/tests/harness/perturbed_communicator.h"

#include <chrono>
#include <map>
#include <stdexcept>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/recorder.h"

namespace lockstep::testing {
namespace {

using Code = absl::StatusCode;

// Which of ten calls a fault hits, from 1. Sums and barriers take turns.
std::vector<int> HitBy(const Fault& fault, int rank = 0) {
  Recorder inner(rank, 2);
  PerturbedCommunicator comm(inner, {.faults = {fault}});
  std::vector<int> hit;
  for (int call = 1; call <= 10; ++call) {
    const absl::Duration before = comm.delayed();
    const absl::Status status = call % 2 == 1 ? Sum(comm) : comm.Barrier();
    if (!status.ok() || comm.delayed() != before) hit.push_back(call);
  }
  return hit;
}

TEST_CASE("a fault hits one call of its rank, the nth of its kind, and no other") {
  using Calls = std::vector<int>;
  for (const FaultKind kind : {FaultKind::kFail, FaultKind::kLate, FaultKind::kNeverArrive}) {
    const absl::Duration delay = absl::Milliseconds(1);
    CHECK(HitBy({.nth = 1, .kind = kind, .delay = delay}) == Calls{1});
    CHECK(HitBy({.nth = 4, .kind = kind, .delay = delay}) == Calls{4});
    CHECK(HitBy({.at = CollectiveKind::kAllReduce, .nth = 2, .kind = kind, .delay = delay}) ==
          Calls{3});
    CHECK(HitBy({.at = CollectiveKind::kBarrier, .nth = 5, .kind = kind, .delay = delay}) ==
          Calls{10});
    CHECK(
        HitBy({.at = CollectiveKind::kBroadcast, .nth = 1, .kind = kind, .delay = delay}).empty());
    CHECK(HitBy({.rank = 1, .nth = 1, .kind = kind, .delay = delay}).empty());
    CHECK(HitBy({.rank = 1, .nth = 2, .kind = kind, .delay = delay}, 1) == Calls{2});
  }
}

TEST_CASE("several faults each hit their own call, and calls that were refused are not counted") {
  Recorder inner(0, 2);
  PerturbedCommunicator comm(
      inner, {.faults = {{.nth = 3}, {.nth = 1}, {.at = CollectiveKind::kBarrier, .nth = 2}}});
  CHECK(Says(Sum(comm), "injected fault: rank 0 at its all_reduce (float32 x 8, sum) number 1"));
  CHECK(!comm.AllReduce(In({1}), Out({2})).ok());
  REQUIRE_OK(comm.Barrier());
  CHECK(Says(Sum(comm), "number 3"));
  CHECK(Says(comm.Barrier(), "rank 0 at its barrier number 2"));
  REQUIRE_OK(comm.Barrier());
  CHECK(inner.calls.size() == 2);
}

TEST_CASE(
    "faults that fail, throw or stay away keep the call from the group, a late one does not") {
  const auto run = [](FaultKind kind, Recorder& inner, absl::Duration& delayed) {
    PerturbedCommunicator comm(
        inner, {.faults = {{.nth = 1, .kind = kind, .delay = absl::Milliseconds(20)}}});
    inner.on_call = [&] { CHECK(comm.delayed() == absl::Milliseconds(20)); };
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = Sum(comm);
    delayed = comm.delayed();
    CHECK(absl::FromChrono(std::chrono::steady_clock::now() - begin) >= delayed);
    return status;
  };
  Recorder inner(0, 2);
  absl::Duration delayed;
  CHECK(run(FaultKind::kFail, inner, delayed).code() == Code::kInternal);
  CHECK(delayed == absl::ZeroDuration());
  const absl::Status away = run(FaultKind::kNeverArrive, inner, delayed);
  CHECK(away.code() == Code::kInternal);
  CHECK(Says(away, "never arrived"));
  CHECK(delayed == absl::Milliseconds(20));
  CHECK_THROWS_AS(run(FaultKind::kThrow, inner, delayed), std::runtime_error);
  CHECK(inner.calls.empty());
  REQUIRE_OK(run(FaultKind::kLate, inner, delayed));
  CHECK(delayed == absl::Milliseconds(20));
  CHECK(inner.calls.size() == 1);
}

TEST_CASE("a wrong type is another of the same size, in that call alone") {
  const std::map<DType, DType> others = {
      {DType::kFloat32, DType::kInt32},    {DType::kInt32, DType::kFloat32},
      {DType::kFloat64, DType::kInt64},    {DType::kInt64, DType::kFloat64},
      {DType::kFloat16, DType::kBFloat16}, {DType::kBFloat16, DType::kFloat16}};
  for (const auto& [dtype, other] : others) {
    Recorder inner(0, 2);
    PerturbedCommunicator comm(inner, {.faults = {{.nth = 2, .kind = FaultKind::kWrongDtype}}});
    for (int call = 0; call < 3; ++call) REQUIRE_OK(Sum(comm, dtype));
    REQUIRE(inner.calls.size() == 3);
    CHECK(inner.calls[0].dtype == dtype);
    CHECK(inner.calls[1].dtype == other);
    CHECK(inner.calls[1].in_count() == 8);
    CHECK(inner.calls[2].dtype == dtype);
  }
}

TEST_CASE("a wrong count is one less, of what goes in and what comes out") {
  Recorder inner(0, 2);
  const auto last = [&](absl::FunctionRef<absl::Status(Communicator&)> call) {
    PerturbedCommunicator comm(inner, {.faults = {{.nth = 1, .kind = FaultKind::kWrongCount}}});
    REQUIRE_OK(call(comm));
    return inner.calls.back();
  };
  CollectiveCall call = last([](Communicator& comm) { return Sum(comm); });
  CHECK(call.in_width == 7);
  CHECK(call.out_width == 7);
  call = last([](Communicator& comm) {
    return comm.ReduceScatter(In({2, 4}), Out({2, 0}), ReduceOp::kSum, 1);
  });
  CHECK(call.outer == 2);
  CHECK(call.in_width == 3);
  CHECK(call.out_width == 0);
  call = last([](Communicator& comm) { return comm.AllGather(In({0}), Out({4})); });
  CHECK(call.in_width == 0);
  CHECK(call.out_width == 3);
  const std::int64_t send[] = {0, 4};
  const std::int64_t receive[] = {3, 1};
  last([&](Communicator& comm) { return comm.AllToAll(In({4}), Out({4}), send, receive); });
  REQUIRE(inner.counts.size() == 2);
  CHECK(inner.counts[0] == std::vector<std::int64_t>{0, 3});
  CHECK(inner.counts[1] == std::vector<std::int64_t>{2, 1});
  CHECK(send[1] == 4);
}

TEST_CASE("a call that has no count or type cannot have a wrong one, and says so") {
  Recorder inner(0, 2);
  for (const FaultKind kind : {FaultKind::kWrongCount, FaultKind::kWrongDtype}) {
    PerturbedCommunicator comm(inner, {.faults = {{.nth = 1, .kind = kind}}});
    const absl::Status status = comm.Barrier();
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, "rank 0 at its barrier number 1 cannot ask for another count or type"));
  }
  PerturbedCommunicator comm(inner, {.faults = {{.nth = 1, .kind = FaultKind::kWrongCount}}});
  CHECK(Says(comm.AllReduce(In({0}), Out({0})), "cannot ask for less: it has no elements"));
  CHECK(inner.calls.empty());
}

TEST_CASE("a perturbation that cannot be is refused, by the check and by every call") {
  const struct {
    Perturbation perturbation;
    const char* says;
  } cases[] = {
      {{.faults = {{.rank = 0}, {.rank = 2}}}, "rank 2 in a group of 2; it must be from 0 to 1"},
      {{.faults = {{.rank = -1}}}, "rank -1 in a group of 2"},
      {{.faults = {{.nth = 0}}}, "at call number 0; they are counted from 1"},
      {{.faults = {{.nth = -3}}}, "at call number -3"},
      {{.faults = {{.delay = absl::Seconds(-1)}}},
       "a delay of -1s; it must be finite, and at least 0"},
      {{.faults = {{.delay = absl::InfiniteDuration()}}}, "a delay of inf"},
      {{.faults = {{.at = CollectiveKind::kBarrier, .kind = FaultKind::kWrongCount}}},
       "at a barrier, which has"},
      {{.faults = {{.at = CollectiveKind::kSplit, .kind = FaultKind::kWrongDtype}}},
       "at a split, which has"},
      {{.max_delay = absl::Seconds(-1)}, "at most -1s; it must be finite, and at least 0"},
      {{.max_delay = absl::InfiniteDuration()}, "at most inf"},
  };
  for (const auto& [perturbation, says] : cases) {
    const absl::Status status = CheckPerturbation(perturbation, 2);
    INFO(status.ToString());
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, says));
    Recorder inner(0, 2);
    PerturbedCommunicator comm(inner, perturbation);
    CHECK(Sum(comm) == status);
    CHECK(comm.Split(0, 0).status() == status);
    CHECK(inner.calls.empty());
  }
  REQUIRE_OK(CheckPerturbation(
      {.faults = {{.rank = 1, .delay = absl::ZeroDuration()}}, .max_delay = absl::ZeroDuration()},
      2));
}

}  // namespace
}  // namespace lockstep::testing
