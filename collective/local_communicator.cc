#include "lockstep/collective/local_communicator.h"

#include <algorithm>
#include <utility>

#include "lockstep/collective/agreement.h"
#include "lockstep/collective/reduce_tree.h"

namespace lockstep::internal {
namespace {

// Says on the way out, also by the unwinding of a cancelled thread, how far this rank has come.
class OnExit {
 public:
  OnExit(LocalGroup::Slot& slot, Progress progress) : slot_(slot), progress_(progress) {}
  OnExit(const OnExit&) = delete;
  OnExit& operator=(const OnExit&) = delete;
  // Release pairs with the acquire of whoever waits for this rank to be done.
  ~OnExit() { slot_.progress.store(progress_.Pack(), std::memory_order_release); }

 private:
  LocalGroup::Slot& slot_;
  const Progress progress_;
};

bool HasFloatingInput(const CollectiveCall& call) {
  const bool reduces =
      call.kind == CollectiveKind::kAllReduce || call.kind == CollectiveKind::kReduceScatter;
  return reduces && IsFloating(call.dtype);
}

class NoRank final : public Communicator {
 public:
  explicit NoRank(int world_size) : Communicator(-1, world_size, Device::Cpu()) {}
  CommunicatorStats stats() const override { return {}; }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int, int) override { return Error(); }
  absl::Status Synchronize() override { return Error(); }

 protected:
  absl::Status Execute(const CollectiveCall&) override { return Error(); }
  absl::Status Refuse(const CollectiveCall&, absl::Status) override { return Error(); }

 private:
  absl::Status Error() const {
    return absl::InvalidArgumentError(
        absl::StrCat("communicator: asked for a rank that the group does not have; it has ",
                     world_size(), ", from 0 to ", world_size() - 1));
  }
};

}  // namespace

std::unique_ptr<Communicator> MakeNoRank(int world_size) {
  return std::make_unique<NoRank>(world_size);
}

LocalCommunicator::LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank)
    : Communicator(rank, group->world_size(),
                   group->streams()[static_cast<std::size_t>(rank)].device()),
      group_(std::move(group)) {
  for (std::uint64_t parity = 0; parity < 2; ++parity) {
    for (int other = 0; other < world_size(); ++other) {
      calls_[parity].push_back(&group_->record(other, parity).call);
    }
  }
}

CommunicatorStats LocalCommunicator::stats() const {
  return {.num_collectives = num_collectives_,
          .num_last_arrivals = num_last_arrivals_,
          .total_wait = absl::FromChrono(total_wait_),
          .max_wait = absl::FromChrono(max_wait_),
          .total_time = absl::FromChrono(total_time_)};
}

absl::Status LocalCommunicator::Execute(const CollectiveCall& call) {
  const Clock::time_point start = Clock::now();
  LOCKSTEP_RETURN_IF_ERROR(Enter(call.kind));
  const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
  const absl::Status status = RunRound(call);
  num_collectives_ += 1;
  total_time_ += Clock::now() - start;
  return status;
}

absl::Status LocalCommunicator::Refuse(const CollectiveCall& call, absl::Status error) {
  LOCKSTEP_RETURN_IF_ERROR(Enter(call.kind));
  const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
  group_->slot(rank()).knows_failure = true;
  group_->Fail(
      rank(), epoch_,
      absl::AbortedError(absl::StrCat("rank ", rank(), " refused its call: ", error.message())));
  return error;
}

absl::Status LocalCommunicator::Enter(CollectiveKind kind) {
  LocalGroup::Slot& mine = group_->slot(rank());
  if (Progress::Unpack(mine.progress.load(std::memory_order_relaxed)).stage !=
      Progress::Stage::kLeft) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(kind), ": rank ", rank(),
                     " is in another call already, on another thread; a rank is one thread"));
  }
  // Who knows of no failure need not look at the word, which costs a miss: it finds out when it
  // arrives.
  if (mine.knows_failure) {
    const auto health = group_->word().health();
    if (health.culprit >= 0) return Poisoned(kind, health.culprit, health.epoch);
    mine.knows_failure = false;
    mine.epoch = health.epoch;
  }
  if (absl::Status health = group_->transport().Health(); !health.ok()) {
    mine.knows_failure = true;
    group_->Fail(rank(), mine.epoch, health);
    return health;
  }
  if (epoch_ != mine.epoch) round_ = 0;
  epoch_ = mine.epoch;
  round_ += 1;
  return absl::OkStatus();
}

absl::Status LocalCommunicator::Poisoned(CollectiveKind kind, int culprit, std::uint32_t epoch) {
  const absl::Status cause = group_->Diagnosis(culprit, epoch);
  return absl::AbortedError(
      absl::StrCat(Name(kind), ": the group is poisoned until Reset(); first cause: ",
                   absl::StatusCodeToString(cause.code()), ": ", cause.message()));
}

absl::Status LocalCommunicator::RunRound(const CollectiveCall& call) {
  LocalGroup::Record record{.call = call};
  const bool check_nan = group_->options().check_nan && HasFloatingInput(call);
  if (check_nan) record.first_nan = FirstNan(call.dtype, call.in, call.in_count());
  Transport& transport = group_->transport();
  // The calls of a group keep their order.
  if (side_stream_pending_ && !on_side_stream_) LOCKSTEP_RETURN_IF_ERROR(JoinSideStream());
  record.call.capturing = transport.IsCapturing(rank());
  LOCKSTEP_RETURN_IF_ERROR(OrFail(transport.Prepare(rank(), record.call)));
  LOCKSTEP_RETURN_IF_ERROR(Publish(std::move(record)));
  if (check_nan) LOCKSTEP_RETURN_IF_ERROR(CheckNoNan());
  // Nobody waits for a barrier's data, and a rank's record is safe until the round after the next.
  if (call.kind == CollectiveKind::kBarrier) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(MoveData());
  if (!transport.meets_again()) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(Meet(Progress::Stage::kMoved, [] { return true; }));
  return OrFail(transport.Finish(rank()));
}

absl::Status LocalCommunicator::EnterSideStream() {
  LOCKSTEP_RETURN_IF_ERROR(OrFail(group_->transport().EnterSideStream(rank())));
  on_side_stream_ = true;
  side_stream_pending_ = true;
  return absl::OkStatus();
}

absl::Status LocalCommunicator::LeaveSideStream() {
  on_side_stream_ = false;
  return OrFail(group_->transport().LeaveSideStream(rank()));
}

absl::Status LocalCommunicator::JoinSideStream() {
  if (!std::exchange(side_stream_pending_, false)) return absl::OkStatus();
  return OrFail(group_->transport().JoinSideStream(rank()));
}

absl::Status LocalCommunicator::OrFail(absl::Status status) {
  if (status.ok()) return status;
  group_->slot(rank()).knows_failure = true;
  group_->Fail(rank(), epoch_,
               absl::AbortedError(absl::StrCat("rank ", rank(), " failed: ", status.ToString())));
  return status;
}

absl::Status LocalCommunicator::Publish(LocalGroup::Record record) {
  MyRecord() = std::move(record);
  // Release pairs with the acquire in LocalGroup::DescribeMissing; those who meet see it through
  // the barrier word.
  group_->slot(rank()).progress.store(Progress{epoch_, round_, Progress::Stage::kPublished}.Pack(),
                                      std::memory_order_release);
  return Meet(Progress::Stage::kPublished, [this] { return AllAgree(); });
}

bool LocalCommunicator::AllAgree() {
  const absl::Status agreement = CheckAgreement(calls());
  if (agreement.ok()) return true;
  group_->Explain(
      rank(), epoch_,
      absl::Status(agreement.code(), absl::StrCat("#", round_, ": ", agreement.message())));
  return false;
}

absl::Status LocalCommunicator::CheckNoNan() {
  for (int other = 0; other < world_size(); ++other) {
    const LocalGroup::Record& record = group_->record(other, round_);
    if (record.first_nan < 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(record.call.Describe(round_), ": the input of rank ", other,
                     " has a NaN at index ", record.first_nan, "; nothing was moved"));
  }
  return absl::OkStatus();
}

absl::Status LocalCommunicator::MoveData() {
  const OnExit moved(group_->slot(rank()), {epoch_, round_, Progress::Stage::kMoved});
  return OrFail(group_->transport().Move({.rank = rank(), .calls = calls(), .failed = [this] {
                                            return group_->word().health().culprit >= 0;
                                          }}));
}

template <typename Agree>
absl::Status LocalCommunicator::Meet(Progress::Stage stage, Agree&& agree) {
  const Word::Outcome outcome =
      group_->word().Meet(rank(), epoch_, group_->timeout(), agree, [&](Word::Reason reason) {
        group_->Explain(rank(), epoch_,
                        reason == Word::Reason::kDeparted
                            ? group_->DescribeDeparted()
                            : group_->DescribeMissing({epoch_, round_, stage}));
      });
  total_wait_ += outcome.waited;
  max_wait_ = std::max(max_wait_, outcome.waited);
  if (stage == Progress::Stage::kPublished && outcome.last) num_last_arrivals_ += 1;
  return outcome.verdict == Word::Verdict::kCompleted ? absl::OkStatus() : Failed(outcome, stage);
}

absl::Status LocalCommunicator::Failed(const Word::Outcome& outcome, Progress::Stage stage) {
  group_->slot(rank()).knows_failure = true;
  // Whoever poisons the word may have had no time to.
  group_->transport().Abort();
  const CollectiveCall& mine = MyRecord().call;
  if (outcome.verdict == Word::Verdict::kStale) {
    return absl::CancelledError(absl::StrCat(
        Name(mine.kind), ": rank ", rank(),
        " missed a failure of the group, which has been reset since; this call belonged "
        "to the round that failed, and the next one joins the others"));
  }
  if (!outcome.arrived && outcome.culprit != rank())
    return Poisoned(mine.kind, outcome.culprit, epoch_);
  const absl::Status cause = group_->Diagnosis(outcome.culprit, epoch_);
  std::string text(cause.message());
  // An abort does not know what it interrupts; the other causes name the round themselves.
  if (absl::IsAborted(cause)) text = absl::StrCat(mine.Describe(round_), ": ", text);
  if (stage == Progress::Stage::kMoved && !group_->AwaitAllMoved({epoch_, round_, stage})) {
    absl::StrAppend(
        &text, "; a rank is still moving data, and may touch this rank's memory until it returns");
  }
  return absl::Status(cause.code(), text);
}

absl::Status LocalCommunicator::Synchronize() {
  absl::Status done = group_->transport().Synchronize(rank());
  if (done.ok()) done = group_->transport().Health();
  const LocalGroup::Slot& mine = group_->slot(rank());
  if (!done.ok()) group_->Fail(rank(), mine.epoch, done);
  const absl::Status cause = group_->FirstCause();
  return cause.ok() ? done : cause;
}

absl::StatusOr<std::unique_ptr<Communicator>> LocalCommunicator::Split(int color, int key) {
  std::shared_ptr<LocalGroup> child;
  int child_rank = -1;
  LOCKSTEP_RETURN_IF_ERROR(Enter(CollectiveKind::kSplit));
  LocalGroup::Record& record = MyRecord();
  {
    const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
    LOCKSTEP_RETURN_IF_ERROR(ExchangeChildren(color, key, child, child_rank));
  }
  // When this is over everyone has taken the child out of its maker's record.
  LOCKSTEP_RETURN_IF_ERROR(Barrier());
  record.child = nullptr;
  if (color < 0) return nullptr;
  if (child == nullptr)
    return absl::ResourceExhaustedError("split: the first rank of the new group could not make it");
  return std::make_unique<LocalCommunicator>(std::move(child), child_rank);
}

absl::Status LocalCommunicator::ExchangeChildren(int color, int key,
                                                 std::shared_ptr<LocalGroup>& child,
                                                 int& child_rank) {
  LOCKSTEP_RETURN_IF_ERROR(
      Publish({.call = {.kind = CollectiveKind::kSplit}, .color = color, .key = key}));
  std::vector<int> members;
  for (int other = 0; other < world_size(); ++other) {
    if (color >= 0 && group_->record(other, round_).color == color) members.push_back(other);
  }
  std::stable_sort(members.begin(), members.end(), [this](int a, int b) {
    return group_->record(a, round_).key < group_->record(b, round_).key;
  });
  child_rank =
      static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
  {
    const OnExit moved(group_->slot(rank()), {epoch_, round_, Progress::Stage::kMoved});
    if (color >= 0 && members.front() == rank()) {
      std::vector<Stream> streams;
      std::vector<int> task_ranks;
      for (const int member : members) {
        streams.push_back(group_->streams()[static_cast<std::size_t>(member)]);
        task_ranks.push_back(group_->task_ranks()[static_cast<std::size_t>(member)]);
      }
      auto made = LocalGroup::Create(std::move(streams), std::move(task_ranks), group_->observers(),
                                     group_->options());
      if (made.ok()) MyRecord().child = *std::move(made);
    }
  }
  LOCKSTEP_RETURN_IF_ERROR(Meet(Progress::Stage::kMoved, [] { return true; }));
  if (color >= 0) child = group_->record(members.front(), round_).child;
  return absl::OkStatus();
}

}  // namespace lockstep::internal
