// `lockstep check`: it runs, and what it finds is all right.
#include <fcntl.h>

#include "absl/time/clock.h"
#include "lockstep/tests/ranks.h"
#include "lockstep/tools/lockstep/check/abort_latency.h"
#include "lockstep/tools/lockstep/check/campaign.h"
#include "lockstep/tools/lockstep/check/check.h"
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

TEST_CASE("groups of 2, 3, 4 and 8 ranks survive a campaign of faults") {
  const Sandbox sandbox;
  const auto document =
      Document(sandbox.Run("check --campaign --minutes=0.1 --seed=7 --format=json"));
  REQUIRE(document["rows"].size() == 4);
  for (const auto& row : document["rows"]) {
    CHECK(row["faults"] > 0);
    CHECK(row["survived"] == row["faults"]);
    // Each ends with one, where the machine lets it.
    CHECK(row["good_rounds"] >= row["episodes"]);
    for (const char* none : {"split_verdicts", "wrong_results", "hangs", "leaks"})
      CHECK(row[none] == 0);
  }
  std::int64_t episodes = 0;
  std::int64_t faults = 0;
  for (const auto& row : document["rows"]) {
    episodes += row["episodes"].get<std::int64_t>();
    faults += row["faults"].get<std::int64_t>();
  }
  for (const auto& mishap : document["mishaps"]) {
    episodes -= mishap["happened"].get<std::int64_t>();
    const bool none = mishap["mishap"] == "nothing" || mishap["mishap"] == "comes late";
    if (!none) faults -= mishap["happened"].get<std::int64_t>();
    CHECK(mishap["happened"] == mishap["survived"]);
  }
  CHECK(episodes == 0);
  CHECK(faults == 0);
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
    seen[static_cast<int>(plan.mishap)] += 1;
  }
  for (const int times : seen) CHECK(times > 0);
}

// No machine is too slow for it.
constexpr absl::Duration kLongTimeout = absl::Seconds(60);

EpisodeFindings Run(const EpisodePlan& plan, testing::Ranks& ranks,
                    absl::Duration timeout = kLongTimeout) {
  return RunEpisode(plan, *ranks.executor, *ranks.barrier, timeout);
}

// Calls of one kind, and nothing goes wrong.
EpisodePlan Calls(int count) {
  EpisodePlan plan;
  for (int i = 0; i < count; ++i) {
    plan.calls.push_back({.kind = CollectiveKind::kAllReduce,
                          .dtype = DType::kInt32,
                          .op = ReduceOp::kSum,
                          .in_place = false,
                          .bytes = 512});
  }
  return plan;
}

TEST_CASE("an episode that goes otherwise than planned is found out") {
  testing::Ranks ranks = *testing::Ranks::Create(2, {.timeout = kLongTimeout});
  EpisodePlan plan = PlanEpisode(1, 2);
  plan.mishap = Mishap::kNone;
  CHECK(Run(plan, ranks).survived.ok());
  ranks.barrier->Abort(absl::CancelledError("from nowhere"));
  const EpisodeFindings aborted = Run(plan, ranks);
  CHECK(testing::Says(aborted.survived, "from nowhere"));
  CHECK(aborted.split_verdicts == 0);
  plan.mishap = Mishap::kExtra;
  plan.rank = 7;  // nobody
  CHECK(testing::Says(Run(plan, ranks).survived, "Run returned OK"));
}

TEST_CASE("an episode counts every result that is wrong, not the last alone") {
  testing::Ranks ranks = *testing::Ranks::Create(2, {.timeout = kLongTimeout});
  EpisodePlan plan = Calls(3);
  const EpisodeFindings right = Run(plan, ranks);
  CHECK(right.wrong_results == 0);
  CHECK(right.good_rounds == 3 + 1);  // and that of the healed group
  for (const int spoiled : {1, 2, 3}) {
    int results = 0;
    plan.spoil = [&](int rank, const Tensor& result) {
      if (rank == 1 && ++results == spoiled) result.data<std::int32_t>()[3] += 1;
    };
    CHECK(Run(plan, ranks).wrong_results == 1);
  }
  plan.spoil = [](int, const Tensor& result) { result.data<std::int32_t>()[0] += 1; };
  CHECK(Run(plan, ranks).wrong_results == 2 * 3 + 2);
}

TEST_CASE(
    "a time-out is found out where none was planned, and is planned where a rank stays away") {
  constexpr absl::Duration kTimeout = absl::Milliseconds(100);
  testing::Ranks ranks = *testing::Ranks::Create(2, {.timeout = kTimeout});
  EpisodePlan plan = Calls(1);
  plan.spoil = [](int rank, const Tensor&) {
    // Between a result and the next call, in which the other one waits.
    if (rank == 1) absl::SleepFor(4 * kTimeout);
  };
  plan.calls.push_back(plan.calls.front());
  const EpisodeFindings late = Run(plan, ranks, kTimeout);
  CHECK_FALSE(late.survived.ok());
  CHECK_FALSE(late.slow);
  for (const Mishap mishap : {Mishap::kNeverArrives, Mishap::kTooLate}) {
    EpisodePlan away = Calls(2);
    away.mishap = mishap;
    away.at = 1;
    CHECK(Run(away, ranks, kTimeout).survived.ok());
  }
}

TEST_CASE("a campaign is good when nothing at all was found") {
  const CampaignResult good;
  CHECK(good.good());
  CampaignResult result = good;
  result.slow = 5;
  result.happened[3] = result.survived[3] = 2;
  CHECK(result.good());
  result.happened[3] = 3;
  CHECK_FALSE(result.good());
  for (std::int64_t CampaignResult::*count :
       {&CampaignResult::split_verdicts, &CampaignResult::wrong_results, &CampaignResult::leaks,
        &CampaignResult::hangs}) {
    result = good;
    result.*count = 1;
    CHECK_FALSE(result.good());
  }
  result = good;
  result.first_failure = "something";
  CHECK_FALSE(result.good());
}

TEST_CASE("a campaign finds a result that is wrong once, and names the episode") {
  int results = 0;
  const CampaignOptions options{.world_size = 2,
                                .length = absl::ZeroDuration(),
                                .warm_up = 20,
                                .spoil = [&](int rank, const Tensor& result) {
                                  if (rank == 0 && ++results == 3)
                                    *static_cast<unsigned char*>(result.raw_data()) ^= 1;
                                }};
  const CampaignResult result = RunCampaign(options);
  CHECK(result.episodes == 21);
  CHECK(result.wrong_results == 1);
  CHECK(result.first_failure.find("1 wrong results") != std::string::npos);
  CHECK_FALSE(result.good());
}

TEST_CASE("a campaign finds descriptors that stay open, and a rank that hangs") {
  CampaignOptions options{.world_size = 2, .length = absl::ZeroDuration(), .warm_up = 5};
  CHECK(RunCampaign(options).good());
  options.spoil = [](int, const Tensor&) { static_cast<void>(open("/dev/null", O_RDONLY)); };
  CHECK(RunCampaign(options).leaks == 1);
  options.spoil = [](int, const Tensor&) { absl::SleepFor(absl::InfiniteDuration()); };
  options.grace = absl::Seconds(2);
  const CampaignResult hung = RunCampaign(options);
  CHECK(hung.hangs == 1);
  CHECK(hung.first_failure.find("was not done within 2s") != std::string::npos);
}

TEST_CASE("check fails where a campaign was not good, of any number of ranks") {
  CheckOptions options{.world_sizes = {2, 3}, .campaign = true, .length = absl::Milliseconds(1)};
  CHECK(Check(options).ok());
  options.spoil = [](int rank, const Tensor& result) {
    if (rank == 2) *static_cast<unsigned char*>(result.raw_data()) ^= 1;
  };
  const absl::Status status = Check(options);
  CHECK(absl::IsDataLoss(status));
  CHECK(testing::Says(status, "3 ranks: episode"));
  CHECK_FALSE(testing::Says(status, "2 ranks: episode"));
}

TEST_CASE("an abort that fails no barrier is found out, and so is one that something else failed") {
  CHECK(MeasureAbortLatency(3, 0, 20).ok());
  const auto completed = MeasureAbortLatency(
      2, 0, 3, [](CollectiveBarrier& barrier) { barrier.communicator(1).Barrier().IgnoreError(); });
  CHECK(testing::Says(completed.status(), "got OK"));
  const auto failed = MeasureAbortLatency(2, 0, 3, [](CollectiveBarrier& barrier) {
    barrier.Abort(absl::CancelledError("something else"));
  });
  CHECK(testing::Says(failed.status(), "something else"));
  CHECK(MeasureAbortLatency(3, 0, 20)->size() == 40);
}

}  // namespace
}  // namespace lockstep::tools
