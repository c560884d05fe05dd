#include "lockstep/tools/lockstep/check/episode_plan.h"

#include "lockstep/tools/lockstep/bench/collective_data.h"

namespace lockstep::tools {

absl::string_view Name(Mishap mishap) {
  constexpr absl::string_view kNames[kNumMishaps] = {
      "nothing",     "comes late",     "returns an error", "throws",        "its thread ends",
      "never comes", "comes too late", "wrong count",      "wrong type",    "wrong reduction",
      "wrong kind",  "null pointer",   "one call less",    "one call more", "aborts from outside"};
  return kNames[static_cast<int>(mishap)];
}

bool MustTimeOut(Mishap mishap) {
  return mishap == Mishap::kNeverArrives || mishap == Mishap::kTooLate;
}

EpisodePlan PlanEpisode(std::uint64_t seed, int world_size) {
  std::mt19937_64 random(seed);
  EpisodePlan plan;
  for (int i = 1 + Draw(random, 6); i > 0; --i) {
    plan.calls.push_back({.kind = kMovingKinds[Draw(random, 5)],
                          .dtype = kAllDTypes[Draw(random, 6)],
                          .op = kAllReduceOps[Draw(random, 5)],
                          .in_place = Draw(random, 2) == 0,
                          .bytes = 512 << Draw(random, 6)});
  }
  plan.mishap = static_cast<Mishap>(Draw(random, kNumMishaps));
  plan.rank = Draw(random, world_size);
  plan.at = Draw(random, static_cast<int>(plan.calls.size()));
  plan.seed = random();
  return plan;
}

}  // namespace lockstep::tools
