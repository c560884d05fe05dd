// `lockstep check`: it runs, and what it finds is all right.
#include "lockstep/tests/tools/sandbox.h"
#include "lockstep/tools/lockstep/campaign_episode.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

nlohmann::json Document(const Outcome& outcome) {
  INFO(outcome.out << outcome.err);
  REQUIRE(outcome.exit_code == 0);
  auto document = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  REQUIRE_FALSE(document.is_discarded());
  return document;
}

TEST_CASE("groups of 2, 3, 4 and 8 ranks survive a campaign of faults") {
  const Sandbox sandbox;
  const auto document =
      Document(sandbox.Run("check --campaign --minutes=0.1 --seed=7 --format=json"));
  REQUIRE(document["rows"].size() == 4);
  for (const auto& row : document["rows"]) {
    CHECK(row["faults"] > 0);
    CHECK(row["survived"] == row["faults"]);
    CHECK(row["good_rounds"] > row["episodes"]);
    for (const char* none : {"split_verdicts", "wrong_results", "hangs", "leaks"})
      CHECK(row[none] == 0);
  }
}

TEST_CASE("the time from an abort to each rank that waits is measured") {
  const Sandbox sandbox;
  const auto document = Document(sandbox.Run("check --format=json"));
  REQUIRE(document["rows"].size() == 2);
  for (const auto& row : document["rows"]) {
    CHECK(row["samples"] > 0);
    CHECK(row["p50_us"] > 0);
    CHECK(row["p999_us"] <= row["max_us"]);
  }
}

TEST_CASE("plans are the same for one seed, and come upon every mishap") {
  std::vector<int> seen(kNumMishaps);
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const EpisodePlan plan = PlanEpisode(seed, 3);
    const EpisodePlan again = PlanEpisode(seed, 3);
    CHECK(plan.mishap == again.mishap);
    CHECK(plan.seed == again.seed);
    CHECK(plan.at < static_cast<int>(plan.calls.size()));
    CHECK(plan.rank < 3);
    seen[static_cast<std::size_t>(plan.mishap)] += 1;
  }
  for (const int times : seen) CHECK(times > 0);
}

// The judge has to be able to find fault: a mishap that the plan does not tell of is none of its
// own, and what should have gone wrong and did not is one.
TEST_CASE("an episode that goes otherwise than planned is found out") {
  constexpr absl::Duration kTimeout = absl::Milliseconds(500);
  auto executor = *Executor::Create({.devices = {Device::Cpu()}, .world_size = 2});
  auto barrier = *CollectiveBarrier::Create(*executor, {.timeout = kTimeout});
  EpisodePlan plan = PlanEpisode(1, 2);
  plan.mishap = Mishap::kNone;
  CHECK(RunEpisode(plan, *executor, *barrier, kTimeout).survived.ok());
  barrier->Abort(absl::CancelledError("from nowhere"));
  const EpisodeFindings aborted = RunEpisode(plan, *executor, *barrier, kTimeout);
  CHECK(testing::Says(aborted.survived, "from nowhere"));
  CHECK(aborted.split_verdicts == 0);
  plan.mishap = Mishap::kExtra;
  plan.rank = 7;  // nobody
  CHECK(testing::Says(RunEpisode(plan, *executor, *barrier, kTimeout).survived, "Run returned OK"));
}

}  // namespace
}  // namespace lockstep::tools
