#include "lockstep/tools/lockstep/check/episode.h"

#include <pthread.h>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "lockstep/tools/lockstep/bench/rank_bench.h"

namespace lockstep::tools {
namespace {

// Makes the calls of a plan, with its mishap if it is this rank's, and keeps every verdict. Run by
// the rank's thread; read when the Run is over. The arguments must outlive it.
class EpisodeRank {
 public:
  // The text of a planned error or exception.
  static constexpr char kPlanned[] = "planned: the task fails";

  EpisodeRank(const EpisodePlan& plan, CollectiveBarrier& barrier, absl::Duration timeout, int rank)
      : plan_(plan),
        barrier_(barrier),
        timeout_(timeout),
        random_(plan.seed + static_cast<std::uint64_t>(rank)) {}

  absl::Status Run(Worker& worker) {
    Communicator& comm = barrier_.communicator(worker.rank());
    const bool mine = worker.rank() == plan_.rank;
    for (int i = 0; i < static_cast<int>(plan_.calls.size()); ++i) {
      const EpisodeCall& call = plan_.calls[i];
      DelayAtRandom();
      if (mine && i == plan_.at) {
        LOCKSTEP_RETURN_IF_ERROR(CallWithMishap(worker, comm, call));
      } else {
        LOCKSTEP_RETURN_IF_ERROR(Record(comm, CallAndCheck(worker, comm, call)));
      }
      if (left_) return absl::OkStatus();
    }
    return mine && plan_.mishap == Mishap::kExtra ? Record(comm, comm.Barrier()) : absl::OkStatus();
  }

  // One per call that returned.
  const std::vector<absl::Status>& verdicts() const { return verdicts_; }
  int wrong_results() const { return wrong_results_; }
  // Whether a call on the failed group was not refused.
  bool worked_on() const { return worked_on_; }

 private:
  // Makes ranks arrive in varying orders: at once, or after running or sleeping for a while.
  void DelayAtRandom() {
    const int how = Draw(random_, 8);
    if (how == 0) absl::SleepFor(absl::Microseconds(Draw(random_, 300)));
    for (int turns = how < 3 ? Draw(random_, 20) : 0; turns > 0; --turns) std::this_thread::yield();
  }

  absl::Status CallWithMishap(Worker& worker, Communicator& comm, EpisodeCall call) {
    switch (plan_.mishap) {
      case Mishap::kLate:
        absl::SleepFor(std::min(timeout_ / 8, absl::Milliseconds(6)));
        break;
      case Mishap::kError:
        return absl::DataLossError(kPlanned);
      case Mishap::kException:
        throw std::runtime_error(kPlanned);
      case Mishap::kThreadEnds:
        pthread_exit(nullptr);
      case Mishap::kNeverArrives:
      case Mishap::kTooLate:
        while (barrier_.status().ok()) absl::SleepFor(timeout_ / 16);
        left_ = plan_.mishap == Mishap::kNeverArrives;
        if (left_) return absl::OkStatus();
        break;
      case Mishap::kWrongCount:
        call.bytes += static_cast<std::int64_t>(SizeOf(call.dtype)) * comm.world_size();
        break;
      case Mishap::kWrongDtype:
        call.dtype = call.dtype == DType::kFloat32 ? DType::kInt32 : DType::kFloat32;
        break;
      case Mishap::kWrongReduction:
        call.kind = CollectiveKind::kAllReduce;
        call.op = call.op == ReduceOp::kMin ? ReduceOp::kMax : ReduceOp::kMin;
        break;
      case Mishap::kWrongKind:
        return Record(comm, comm.Barrier());
      case Mishap::kNullPointer: {
        const Tensor nothing = Tensor::View(nullptr, {16}, DType::kFloat32, worker.device());
        return Record(comm, comm.AllReduce(nothing, nothing));
      }
      case Mishap::kSkips:
        return absl::OkStatus();
      case Mishap::kNone:
      case Mishap::kExtra:
      case Mishap::kAborts:
        break;
    }
    return Record(comm, CallAndCheck(worker, comm, call));
  }

  absl::Status CallAndCheck(Worker& worker, Communicator& comm, const EpisodeCall& call) {
    BenchOptions options;
    options.dtype = call.dtype;
    options.op = call.op;
    options.in_place = call.in_place;
    options.spoil = plan_.spoil;
    RankBench bench(call.kind, options, worker,
                    SizeFor(call.kind, call.bytes, call.dtype, comm.world_size()));
    LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveBuffers buffers, bench.MakeBuffers());
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t wrong, bench.CountWrong(buffers, [&] {
      return bench.Queue(comm, buffers);
    }));
    wrong_results_ += wrong > 0;
    return absl::OkStatus();
  }

  absl::Status Record(Communicator& comm, absl::Status verdict) {
    verdicts_.push_back(verdict);
    if (!verdict.ok()) worked_on_ = comm.Barrier().ok();
    return verdict;
  }

  const EpisodePlan& plan_;
  CollectiveBarrier& barrier_;
  const absl::Duration timeout_;
  std::mt19937_64 random_;
  bool left_ = false;
  std::vector<absl::Status> verdicts_;
  int wrong_results_ = 0;
  bool worked_on_ = false;
};

// Threads that are not ranks and abort at random moments.
std::vector<std::jthread> StartAborters(const EpisodePlan& plan, CollectiveBarrier& barrier) {
  std::vector<std::jthread> threads;
  if (plan.mishap != Mishap::kAborts) return threads;
  std::mt19937_64 random(plan.seed + 1000);
  for (int i = 1 + Draw(random, 3); i > 0; --i) {
    threads.emplace_back([&barrier, wait = absl::Microseconds(Draw(random, 400)), i] {
      absl::SleepFor(wait);
      barrier.Abort(absl::CancelledError(absl::StrCat("planned: abort ", i)));
    });
  }
  return threads;
}

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
  {
    const std::vector<std::jthread> aborters = StartAborters(plan, barrier);
    outcome.ran =
        executor.Run([&](Worker& worker) { return outcome.ranks[worker.rank()].Run(worker); });
  }
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
