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
  /// How much longer than `length` the child may take.
  absl::Duration grace = absl::Seconds(60);
  /// After this many episodes everything has been done once, and what is kept for reuse exists:
  /// what grows from then on has leaked. At least one more episode is run, whatever the length.
  int warm_up = 100;
  Spoil spoil = nullptr;
};

/// What became of one world size's mishaps.
struct CampaignResult {
  std::int64_t episodes = 0;
  /// Rounds whose verdicts and results are all right.
  std::int64_t good_rounds = 0;
  /// By Mishap. kNone and kLate are not faults, and must go unnoticed.
  std::array<std::int64_t, kNumMishaps> happened = {};
  std::array<std::int64_t, kNumMishaps> survived = {};
  std::int64_t split_verdicts = 0;
  std::int64_t wrong_results = 0;
  /// Episodes after which the healed group timed out once more, because this machine was too slow
  /// for its short time-out.
  std::int64_t slow = 0;
  /// How many of threads, file descriptors and memory have grown by the end.
  std::int64_t leaks = 0;
  std::int64_t hangs = 0;
  /// The first thing that went wrong, with the seed of its episode.
  std::string first_failure;

  bool good() const;
};

/// Runs episodes in a child process for that long, under a hard limit. The calling process must
/// have a single thread.
CampaignResult RunCampaign(const CampaignOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_CAMPAIGN_H_
