// What an episode of the campaign does, and what goes wrong in it.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_PLAN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_PLAN_H_

#include <cstdint>
#include <random>
#include <vector>

#include "lockstep/collective/collective_call.h"
#include "lockstep/tools/lockstep/bench/bench.h"

namespace lockstep::tools {

/// A number from 0 to `below` - 1.
inline int Draw(std::mt19937_64& random, int below) {
  return std::uniform_int_distribution<int>(0, below - 1)(random);
}

/// What goes wrong on one rank, in place of one of its calls.
enum class Mishap : unsigned char {
  kNone,
  kLate,          // comes when the others have waited for a while
  kError,         // its task returns an error
  kException,     // its task throws
  kThreadEnds,    // its thread ends
  kNeverArrives,  // stays away until the others have given up, and for good
  kTooLate,       // arrives after the others have given up
  kWrongCount,
  kWrongDtype,
  kWrongReduction,
  kWrongKind,
  kNullPointer,
  kSkips,   // makes one call fewer
  kExtra,   // makes one call more
  kAborts,  // goes on, while one to three other threads abort at random moments
};
constexpr int kNumMishaps = 15;
absl::string_view Name(Mishap mishap);
/// Whether a wait has to time out. With every other mishap none may, however slow the machine is:
/// those run in a group with a long time-out.
bool MustTimeOut(Mishap mishap);

/// One collective of all ranks.
struct EpisodeCall {
  CollectiveKind kind;
  DType dtype;
  ReduceOp op;
  bool in_place;
  std::int64_t bytes;
};

struct EpisodePlan {
  std::vector<EpisodeCall> calls;
  Mishap mishap = Mishap::kNone;
  /// The rank that it happens to, and the call that it replaces.
  int rank = 0;
  int at = 0;
  /// Seeds the delays.
  std::uint64_t seed = 0;
  Spoil spoil = nullptr;
};

/// The same plan for the same seed.
EpisodePlan PlanEpisode(std::uint64_t seed, int world_size);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_CHECK_EPISODE_PLAN_H_
