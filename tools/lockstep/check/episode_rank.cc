#include "lockstep/tools/lockstep/check/episode_rank.h"

#include <pthread.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "absl/time/clock.h"
#include "lockstep/tools/lockstep/bench/rank_bench.h"

namespace lockstep::tools {

absl::Status EpisodeRank::Run(Worker& worker) {
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

void EpisodeRank::DelayAtRandom() {
  const int how = Draw(random_, 8);
  if (how == 0) absl::SleepFor(absl::Microseconds(Draw(random_, 300)));
  for (int turns = how < 3 ? Draw(random_, 20) : 0; turns > 0; --turns) std::this_thread::yield();
}

absl::Status EpisodeRank::CallWithMishap(Worker& worker, Communicator& comm, EpisodeCall call) {
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

absl::Status EpisodeRank::CallAndCheck(Worker& worker, Communicator& comm,
                                       const EpisodeCall& call) {
  BenchOptions options;
  options.dtype = call.dtype;
  options.op = call.op;
  options.in_place = call.in_place;
  options.spoil = plan_.spoil;
  RankBench bench(call.kind, options, worker,
                  SizeFor(call.kind, call.bytes, call.dtype, comm.world_size()));
  LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveBuffers buffers, bench.MakeBuffers());
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t wrong,
                            bench.CountWrong(buffers, [&] { return bench.Queue(comm, buffers); }));
  wrong_results_ += wrong > 0;
  return absl::OkStatus();
}

absl::Status EpisodeRank::Record(Communicator& comm, absl::Status verdict) {
  verdicts_.push_back(verdict);
  if (!verdict.ok()) worked_on_ = comm.Barrier().ok();
  return verdict;
}

}  // namespace lockstep::tools
