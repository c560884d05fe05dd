#include "lockstep/tools/lockstep/check/episode.h"

#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "lockstep/tools/lockstep/check/episode_rank.h"

namespace lockstep::tools {
namespace {

// Threads that are not ranks and abort at random moments.
class Aborters {
 public:
  Aborters(const EpisodePlan& plan, CollectiveBarrier& barrier) {
    if (plan.mishap != Mishap::kAborts) return;
    std::mt19937_64 random(plan.seed + 1000);
    for (int i = 1 + Draw(random, 3); i > 0; --i) {
      threads_.emplace_back([&barrier, wait = absl::Microseconds(Draw(random, 400)), i] {
        absl::SleepFor(wait);
        barrier.Abort(absl::CancelledError(absl::StrCat("planned: abort ", i)));
      });
    }
  }
  void Join() {
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::vector<std::thread> threads_;
};

bool MustFail(Mishap mishap) {
  return mishap != Mishap::kNone && mishap != Mishap::kLate && mishap != Mishap::kAborts;
}

// Whether this rank's last call has to have failed when the group has.
bool MustNotice(const EpisodePlan& plan, int rank) {
  const bool its_own = rank == plan.rank;
  switch (plan.mishap) {
    case Mishap::kError:
    case Mishap::kException:
    case Mishap::kThreadEnds:
    case Mishap::kNeverArrives:
    case Mishap::kSkips:
      return !its_own;
    case Mishap::kExtra:
      return its_own;
    case Mishap::kAborts:  // perhaps when all was over
      return false;
    default:
      return true;
  }
}

// What Run() has to return when the rank itself has failed.
bool IsPlanned(Mishap mishap, const absl::Status& ran) {
  switch (mishap) {
    case Mishap::kError:
      return ran == absl::DataLossError(EpisodeRank::kPlanned);
    case Mishap::kException:
      return absl::IsInternal(ran) && absl::StrContains(ran.message(), EpisodeRank::kPlanned);
    case Mishap::kThreadEnds:
      return absl::StrContains(ran.message(), "thread ended");
    default:
      return ran.ok() != MustFail(mishap) || mishap == Mishap::kAborts;
  }
}

struct Outcome {
  absl::Status ran;
  /// Of the group.
  absl::Status cause;
  std::vector<EpisodeRank> ranks;
};

Outcome Execute(const EpisodePlan& plan, Executor& executor, CollectiveBarrier& barrier,
                absl::Duration timeout) {
  Outcome outcome;
  for (int rank = 0; rank < executor.world_size(); ++rank)
    outcome.ranks.emplace_back(plan, barrier, timeout, rank);
  Aborters aborters(plan, barrier);
  outcome.ran =
      executor.Run([&](Worker& worker) { return outcome.ranks[worker.rank()].Run(worker); });
  aborters.Join();
  outcome.cause = barrier.status();
  return outcome;
}

void Count(const EpisodePlan& plan, const Outcome& outcome, EpisodeFindings& findings) {
  for (std::size_t round = 0; round <= plan.calls.size(); ++round) {
    std::size_t ok = 0;
    std::size_t failed = 0;
    for (const EpisodeRank& rank : outcome.ranks) {
      if (rank.verdicts().size() <= round) continue;
      ++(rank.verdicts()[round].ok() ? ok : failed);
    }
    findings.good_rounds += ok == outcome.ranks.size();
    findings.split_verdicts += ok > 0 && failed > 0;
  }
  for (const EpisodeRank& rank : outcome.ranks) findings.wrong_results += rank.wrong_results();
}

// What breaks a promise, if anything.
absl::Status Judge(const EpisodePlan& plan, const Outcome& outcome) {
  const auto wrong = [&](absl::string_view what) {
    return absl::InternalError(absl::StrCat(what, "; Run returned ", outcome.ran.ToString(),
                                            ", the group says ", outcome.cause.ToString()));
  };
  if (!IsPlanned(plan.mishap, outcome.ran))
    return wrong("Run returned something else than planned");
  if (absl::IsDeadlineExceeded(outcome.cause) != MustTimeOut(plan.mishap))
    return wrong("a wait ran out that should not have, or did not run out");
  for (int rank = 0; rank < static_cast<int>(outcome.ranks.size()); ++rank) {
    const EpisodeRank& seen = outcome.ranks[rank];
    const bool failed = !seen.verdicts().empty() && !seen.verdicts().back().ok();
    if (seen.worked_on())
      return wrong(absl::StrCat("rank ", rank, "'s call on the failed group was not refused"));
    if (failed && outcome.cause.ok()) {
      return wrong(absl::StrCat("rank ", rank, " got ", seen.verdicts().back().ToString()));
    }
    if (!failed && !outcome.cause.ok() && MustNotice(plan, rank)) {
      return wrong(absl::StrCat("rank ", rank, " noticed nothing"));
    }
    if (failed && rank != plan.rank &&
        !absl::StrContains(seen.verdicts().back().message(), outcome.cause.message())) {
      return wrong(absl::StrCat("rank ", rank, " was told ", seen.verdicts().back().ToString()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

EpisodeFindings RunEpisode(const EpisodePlan& plan, Executor& executor, CollectiveBarrier& barrier,
                           absl::Duration timeout) {
  EpisodeFindings findings;
  const Outcome failed = Execute(plan, executor, barrier, timeout);
  Count(plan, failed, findings);
  findings.survived.Update(Judge(plan, failed));
  findings.survived.Update(barrier.Reset());
  const EpisodePlan healthy{.calls = {plan.calls.front()}, .seed = plan.seed, .spoil = plan.spoil};
  for (bool again = true; again;) {
    const Outcome healed = Execute(healthy, executor, barrier, timeout);
    Count(healthy, healed, findings);
    // Where waits are short, a slow machine can fail the group again: it has to work in the end.
    again = MustTimeOut(plan.mishap) && absl::IsDeadlineExceeded(healed.cause);
    findings.slow |= again;
    if (!again) findings.survived.Update(Judge(healthy, healed));
    findings.survived.Update(barrier.Reset());
  }
  return findings;
}

}  // namespace lockstep::tools
