// `lockstep check --campaign`: groups that go wrong in every way, again and again.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CAMPAIGN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CAMPAIGN_H_

#include <array>
#include <string>

#include "lockstep/tools/lockstep/check/episode.h"

namespace lockstep::tools {

struct CampaignOptions {
  int world_size = 2;
  std::uint64_t seed = 1;
  absl::Duration length = absl::Seconds(10);
  /// What the child may take beyond that.
  absl::Duration grace = absl::Seconds(60);
  /// After so many episodes everything has been done once, and what is kept for later is there:
  /// what there is more of in the end has leaked. At least one more is run, whatever the length.
  int warm_up = 100;
  Spoil spoil = nullptr;
};

/// What became of one world size's mishaps.
struct CampaignResult {
  std::int64_t episodes = 0;
  /// Whose verdicts and results are all right.
  std::int64_t good_rounds = 0;
  /// By Mishap. kNone and kLate are none, and have to go unnoticed.
  std::array<std::int64_t, kNumMishaps> happened = {};
  std::array<std::int64_t, kNumMishaps> survived = {};
  std::int64_t split_verdicts = 0;
  std::int64_t wrong_results = 0;
  /// Episodes after which this machine was slower than the short time-out of the healed group.
  std::int64_t slow = 0;
  /// Threads, file descriptors or memory that there are more of in the end.
  std::int64_t leaks = 0;
  std::int64_t hangs = 0;
  /// The first thing that was not right, with the seed of its episode.
  std::string first_failure;

  bool good() const;
};

/// Runs episodes in a child process for that long, under a hard limit. The calling process must
/// have a single thread.
CampaignResult RunCampaign(const CampaignOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CAMPAIGN_H_
