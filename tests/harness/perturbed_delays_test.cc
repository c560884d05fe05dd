// What a perturbed end does to its calls, seen from behind it: delays, and the groups split off.
#include <algorithm>
#include <chrono>
#include <set>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/perturbed_communicator.h"
#include "lockstep/tests/recorder.h"

namespace lockstep::testing {
namespace {

TEST_CASE("delays are drawn by seed, rank and number, and are the same each time") {
  const Perturbation perturbation = {.seed = 7, .max_delay = absl::Milliseconds(3)};
  const auto draws = [](const Perturbation& of, int rank) {
    std::vector<absl::Duration> drawn;
    for (std::uint64_t n = 0; n < 1000; ++n) drawn.push_back(DelayOf(of, rank, n));
    return drawn;
  };
  const auto mine = draws(perturbation, 1);
  CHECK(mine == draws(perturbation, 1));
  CHECK(mine != draws(perturbation, 2));
  CHECK(mine != draws({.seed = 8, .max_delay = absl::Milliseconds(3)}, 1));
  // Half of them none, the others all different, over the whole range and not beyond.
  const auto num_zeros = std::count(mine.begin(), mine.end(), absl::ZeroDuration());
  CHECK(num_zeros > 400);
  CHECK(num_zeros < 600);
  CHECK(std::set<absl::Duration>(mine.begin(), mine.end()).size() ==
        mine.size() - static_cast<std::size_t>(num_zeros) + 1);
  const auto [least, largest] = std::minmax_element(mine.begin(), mine.end());
  CHECK(*least == absl::ZeroDuration());
  CHECK(*largest < absl::Milliseconds(3));
  CHECK(*largest > absl::Milliseconds(2.9));
  // Ranks are not late together.
  const auto other = draws(perturbation, 0);
  int num_equal = 0;
  for (std::size_t i = 0; i < mine.size(); ++i)
    num_equal += mine[i] > absl::ZeroDuration() && mine[i] == other[i];
  CHECK(num_equal == 0);
  CHECK(DelayOf({.seed = 0, .max_delay = absl::Hours(1)}, 0, 1) == absl::ZeroDuration());
}

TEST_CASE("a perturbed end sleeps what it draws, before and after each call") {
  const Perturbation perturbation = {.seed = 3, .max_delay = absl::Milliseconds(4)};
  Recorder inner(1, 3);
  PerturbedCommunicator comm(inner, perturbation);
  absl::Duration before;  // what has been slept when a call arrives
  inner.on_call = [&] { before = comm.delayed(); };
  absl::Duration drawn;
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t call = 0; call < 12; ++call) {
    // A split is a call as well.
    if (call % 4 == 3) REQUIRE_OK(comm.Split(0, 0));
    if (call % 4 != 3) REQUIRE_OK(call % 2 == 0 ? Sum(comm) : comm.Barrier());
    drawn += DelayOf(perturbation, 1, 2 * call);
    CHECK(before == drawn);
    drawn += DelayOf(perturbation, 1, 2 * call + 1);
    CHECK(comm.delayed() == drawn);
  }
  CHECK(absl::FromChrono(std::chrono::steady_clock::now() - begin) >= drawn);
  CHECK(drawn > absl::Milliseconds(4));
}

TEST_CASE("without a seed nothing is delayed, and all passes unchanged") {
  Recorder inner(1, 2);
  PerturbedCommunicator comm(inner, {.max_delay = absl::Hours(1)});
  CHECK(comm.rank() == 1);
  CHECK(comm.world_size() == 2);
  REQUIRE_OK(comm.AllGather(In({2, 2}), Out({2, 5}), 1));
  REQUIRE(inner.calls.size() == 1);
  CHECK(inner.calls[0].Describe() == "all_gather (float32 x 4 -> 10)");
  CHECK(inner.calls[0].in == memory[0]);
  CHECK(inner.calls[0].out == memory[1]);
  CHECK(comm.stats().num_collectives == 1);
  CHECK(comm.Synchronize() == absl::UnknownError("synchronized"));
  CHECK(!comm.AllReduce(In({1}), Out({2})).ok());
  CHECK(inner.num_refused == 1);
  CHECK(comm.delayed() == absl::ZeroDuration());
}

TEST_CASE("faults hit splits, and the groups that come of them are delayed but have none") {
  Recorder inner(0, 2);
  PerturbedCommunicator failing(inner, {.faults = {{.at = CollectiveKind::kSplit, .nth = 2}}});
  REQUIRE_OK(failing.Split(0, 0));
  CHECK(Says(failing.Split(0, 0).status(), "injected fault: rank 0 at its split number 2"));
  CHECK(inner.num_splits == 1);
  CHECK(*failing.Split(-1, 0) == nullptr);

  const auto end_of = [](Communicator& comm) { return *comm.Split(0, 1); };
  const auto slept = [](Communicator& end, int num_calls) {
    for (int call = 0; call < num_calls; ++call) REQUIRE_OK(end.Barrier());
    return dynamic_cast<PerturbedCommunicator&>(end).delayed();
  };
  // Ends of one number, by rank of the parent, by split, and split again.
  std::set<absl::Duration> all;
  for (const int rank : {0, 1}) {
    Recorder parent(rank, 2);
    PerturbedCommunicator comm(
        parent,
        {.faults = {{.rank = 1, .nth = 3}}, .seed = 5, .max_delay = absl::Microseconds(100)});
    const auto first = end_of(comm);
    const auto second = end_of(comm);
    const auto of_first = end_of(*first);
    CHECK(first->rank() == 1);
    for (Communicator* end : {first.get(), second.get(), of_first.get()})
      all.insert(slept(*end, 20));
  }
  CHECK(all.size() == 6);
  CHECK(*all.begin() > absl::ZeroDuration());
  Recorder quiet(0, 2);
  PerturbedCommunicator comm(quiet, {});
  CHECK(slept(*end_of(comm), 20) == absl::ZeroDuration());
}

}  // namespace
}  // namespace lockstep::testing
