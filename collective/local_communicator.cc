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

// For a counter that this thread alone writes.
template <typename T>
void Add(std::atomic<T>& counter, T more) {
  counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
}

}  // namespace

LocalCommunicator::LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank)
    : Communicator(rank, group->world_size(), group->streams()[rank].device()),
      group_(std::move(group)) {
  for (std::uint64_t parity = 0; parity < 2; ++parity) {
    for (int other = 0; other < world_size(); ++other) {
      calls_[parity].push_back(&group_->record(other, parity).call);
    }
  }
}

CommunicatorStats LocalCommunicator::stats() const {
  const auto load = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  return {.num_collectives = load(num_collectives_),
          .num_last_arrivals = load(num_last_arrivals_),
          .total_wait = absl::FromChrono(load(total_wait_)),
          .max_wait = absl::FromChrono(load(max_wait_)),
          .total_time = absl::FromChrono(load(total_time_))};
}

absl::Status LocalCommunicator::Execute(const CollectiveCall& call) {
  const Clock::time_point start = Clock::now();
  LOCKSTEP_RETURN_IF_ERROR(Enter(call.kind));
  const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
  const absl::Status status = OutOfMemoryAsStatus([&] { return RunRound(call); });
  if (IsOutOfMemory(status)) LeaveOutOfMemory();
  Add<std::uint64_t>(num_collectives_, 1);
  Add<std::chrono::nanoseconds>(total_time_, Clock::now() - start);
  return status;
}

absl::Status LocalCommunicator::Refuse(const CollectiveCall& call, absl::Status error) {
  LOCKSTEP_RETURN_IF_ERROR(Enter(call.kind));
  const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
  group_->slot(rank()).knows_failure = true;
  const auto known = group_->word().health();
  return OutOfMemoryAsStatus([&] {
    if (known.epoch != epoch_) return Stale(call.kind);
    if (known.culprit >= 0) return Poisoned(Name(call.kind), known);
    group_->Fail(rank(), epoch_, [&] {
      if (IsOutOfMemory(error)) return error;
      return absl::AbortedError(
          absl::StrCat("rank ", rank(), " refused its call: ", error.message()));
    });
    return error;
  });
}

absl::Status LocalCommunicator::Enter(CollectiveKind kind) {
  if (group_->InForkedChild()) return LocalGroup::ForkedChildError(Name(kind));
  LocalGroup::Slot& mine = group_->slot(rank());
  if (Progress::Unpack(mine.progress.load(std::memory_order_relaxed)).stage !=
      Progress::Stage::kLeft) {
    return OutOfMemoryAsStatus([&] {
      return absl::InvalidArgumentError(
          absl::StrCat(Name(kind), ": rank ", rank(),
                       " is in another call already, on another thread; a rank is one thread"));
    });
  }
  absl::Status health = OutOfMemoryAsStatus([&] { return group_->device_work().Health(); });
  // Who knows of no failure need not look at the word, which costs a miss: it finds out when it
  // arrives.
  if (const auto failure = KnownFailure(/*suspects=*/!health.ok())) {
    return OutOfMemoryAsStatus([&] { return Poisoned(Name(kind), *failure); });
  }
  if (!health.ok()) {
    mine.knows_failure = true;
    group_->Fail(rank(), mine.epoch, [&] { return health; });
    return health;
  }
  if (epoch_ != mine.epoch) round_ = 0;
  epoch_ = mine.epoch;
  round_ += 1;
  return absl::OkStatus();
}

std::optional<LocalCommunicator::Word::Health> LocalCommunicator::KnownFailure(bool suspects) {
  LocalGroup::Slot& mine = group_->slot(rank());
  if (!mine.knows_failure && !suspects) return std::nullopt;
  const Word::Health health = group_->word().health();
  mine.knows_failure = health.culprit >= 0;
  mine.epoch = health.epoch;
  return mine.knows_failure ? std::optional(health) : std::nullopt;
}

absl::Status LocalCommunicator::Fail(absl::Status status) {
  if (status.ok() || group_->InForkedChild() || KnownFailure(/*suspects=*/false)) return status;
  LocalGroup::Slot& mine = group_->slot(rank());
  mine.knows_failure = true;
  group_->Fail(rank(), mine.epoch, [&] {
    return absl::AbortedError(absl::StrCat("rank ", rank(), " failed: ", status.ToString()));
  });
  return status;
}

absl::Status LocalCommunicator::Poisoned(absl::string_view what, const Word::Health& health) {
  const absl::Status cause = group_->Diagnosis(health.culprit, health.epoch);
  return absl::AbortedError(
      absl::StrCat(what, ": the group is poisoned until Reset(); first cause: ",
                   absl::StatusCodeToString(cause.code()), ": ", cause.message()));
}

absl::Status LocalCommunicator::Stale(CollectiveKind kind) const {
  return absl::CancelledError(absl::StrCat(
      Name(kind), ": rank ", rank(),
      " missed a failure of the group, which has been reset since; this call belonged to the round "
      "that failed, and the next one joins the others"));
}

absl::Status LocalCommunicator::RunRound(const CollectiveCall& call) {
  LocalGroup::Record& record = MyRecord();
  record.Bring(call, world_size());
  const bool check_nan =
      group_->options().check_nan && Reduces(call.kind) && IsFloating(call.dtype);
  if (check_nan) record.first_nan = FirstNan(call.dtype, call.in, call.in_count());
  // The calls of a group keep their order.
  if (!call.aside) LOCKSTEP_RETURN_IF_ERROR(JoinSideStream());
  side_stream_pending_ = call.aside;
  LOCKSTEP_RETURN_IF_ERROR(OrFail(call.kind, group_->device_work().Begin(rank(), record.call)));
  side_stream_pending_ = record.call.aside;  // not where the device has no room beside
  Transport& transport = group_->transport();
  LOCKSTEP_RETURN_IF_ERROR(OrFail(call.kind, transport.Prepare(rank(), record.call)));
  LOCKSTEP_RETURN_IF_ERROR(Publish());
  if (check_nan) LOCKSTEP_RETURN_IF_ERROR(CheckNoNan());
  // Nobody waits for a barrier's data, and a rank's record is safe until the round after the next.
  if (call.kind == CollectiveKind::kBarrier) return absl::OkStatus();
  const auto failed = [this] { return group_->word().health().culprit >= 0; };
  const Round round{.rank = rank(), .number = round_, .calls = calls(), .failed = failed};
  LOCKSTEP_RETURN_IF_ERROR(Move(round));
  if (!transport.meets_again()) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(Meet(Progress::Stage::kMoved, [] { return true; }));
  return OrFail(call.kind, transport.Finish(round));
}

absl::Status LocalCommunicator::JoinSideStream() {
  if (!std::exchange(side_stream_pending_, false)) return absl::OkStatus();
  if (group_->InForkedChild()) return LocalGroup::ForkedChildError("wait");
  return OrFail(MyRecord().call.kind, group_->device_work().JoinSideStream(rank()));
}

absl::Status LocalCommunicator::OrFail(CollectiveKind kind, absl::Status status) {
  if (status.ok()) return status;
  if (!IsOutOfMemory(status)) {
    status = OutOfMemoryAsStatus([&] {
      return absl::Status(status.code(), absl::StrCat(Name(kind), " #", round_, " on rank ", rank(),
                                                      ": ", status.message()));
    });
  }
  group_->slot(rank()).knows_failure = true;
  group_->Fail(rank(), epoch_, [&] {
    return absl::AbortedError(absl::StrCat("rank ", rank(), " failed: ", status.ToString()));
  });
  return status;
}

void LocalCommunicator::LeaveOutOfMemory() {
  LocalGroup::Slot& mine = group_->slot(rank());
  const Progress done{epoch_, round_, Progress::Stage::kMoved};
  mine.knows_failure = true;
  group_->Fail(rank(), epoch_, [] { return OutOfMemory(); });
  mine.progress.store(done.Pack(), std::memory_order_release);
  group_->AwaitAllMoved(done);
}

absl::Status LocalCommunicator::Publish() {
  LocalGroup::Slot& mine = group_->slot(rank());
  mine.kind.store(MyRecord().call.kind, std::memory_order_relaxed);
  // Release pairs with the acquire in LocalGroup::DescribeMissing; those who meet see it through
  // the barrier word. In one order with the loads of the word and with LocalGroup::AwaitAllLeft: a
  // Reset finds this rank here, or this rank finds why the group was reset.
  mine.progress.store(Progress{epoch_, round_, Progress::Stage::kPublished}.Pack(),
                      std::memory_order_seq_cst);
  return Meet(Progress::Stage::kPublished, [this] { return AllAgree(); });
}

bool LocalCommunicator::AllAgree() {
  const absl::Status agreement = CheckAgreement(calls());
  if (agreement.ok()) return true;
  group_->Explain(rank(), epoch_, [&] {
    return absl::Status(agreement.code(), absl::StrCat("#", round_, ": ", agreement.message()));
  });
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

absl::Status LocalCommunicator::Move(const Round& round) {
  const OnExit moved(group_->slot(rank()), {epoch_, round_, Progress::Stage::kMoved});
  return OrFail(round.mine().kind, group_->transport().Move(round));
}

template <typename Agree>
absl::Status LocalCommunicator::Meet(Progress::Stage stage, Agree&& agree) {
  const auto explain = [&](Word::Reason reason) {
    group_->Explain(rank(), epoch_, [&] {
      return reason == Word::Reason::kDeparted ? group_->DescribeDeparted()
                                               : group_->DescribeMissing({epoch_, round_, stage});
    });
  };
  const Word::Outcome outcome =
      group_->word().Meet(rank(), epoch_, group_->timeout(), patience_, agree, explain);
  Add(total_wait_, outcome.waited);
  if (outcome.waited > max_wait_.load(std::memory_order_relaxed)) {
    max_wait_.store(outcome.waited, std::memory_order_relaxed);
  }
  if (stage == Progress::Stage::kPublished && outcome.last)
    Add<std::uint64_t>(num_last_arrivals_, 1);
  if (outcome.verdict == Word::Verdict::kCompleted) return absl::OkStatus();
  return Failed(outcome, stage);
}

absl::Status LocalCommunicator::Failed(const Word::Outcome& outcome, Progress::Stage stage) {
  group_->slot(rank()).knows_failure = true;
  // Whoever poisons the word may have had no time to.
  group_->device_work().Abort();
  // Before anything else: whoever gets an error may free its memory.
  const bool all_moved =
      stage != Progress::Stage::kMoved || group_->AwaitAllMoved({epoch_, round_, stage});
  const CollectiveCall& mine = MyRecord().call;
  if (outcome.verdict == Word::Verdict::kStale) return Stale(mine.kind);
  // Who has failed the group before knows of it, and does not come to meet.
  const bool took_part =
      outcome.arrived || outcome.culprit == rank() || stage == Progress::Stage::kMoved;
  if (!took_part) return Poisoned(Name(mine.kind), {epoch_, outcome.culprit});
  const absl::Status cause = group_->Diagnosis(outcome.culprit, epoch_);
  std::string text(cause.message());
  // An abort does not know what it interrupts; the other causes name the round themselves.
  if (absl::IsAborted(cause)) text = absl::StrCat(mine.Describe(round_), ": ", text);
  if (!all_moved) {
    absl::StrAppend(
        &text, "; a rank is still moving data, and may touch this rank's memory until it returns");
  }
  return absl::Status(cause.code(), text);
}

absl::Status LocalCommunicator::Synchronize() {
  if (group_->InForkedChild()) return LocalGroup::ForkedChildError("synchronize");
  const auto before = group_->word().health();
  absl::Status done = group_->device_work().Synchronize(rank());
  if (done.ok()) done = OutOfMemoryAsStatus([&] { return group_->device_work().Health(); });
  LocalGroup::Slot& mine = group_->slot(rank());
  if (!done.ok()) group_->Fail(rank(), mine.epoch, [&] { return done; });
  const auto health = group_->word().health();
  if (health.culprit < 0) return done;
  // Or its next call, after a Reset, would be told that it missed this.
  mine.knows_failure = true;
  return OutOfMemoryAsStatus([&] {
    return before.culprit >= 0 ? Poisoned("synchronize", health)
                               : group_->Diagnosis(health.culprit, health.epoch);
  });
}

absl::StatusOr<std::unique_ptr<Communicator>> LocalCommunicator::Split(int color, int key) {
  const Clock::time_point start = Clock::now();
  std::unique_ptr<Communicator> end;
  LOCKSTEP_RETURN_IF_ERROR(Enter(CollectiveKind::kSplit));
  LocalGroup::Record& record = MyRecord();
  {
    const OnExit leave(group_->slot(rank()), {epoch_, round_, Progress::Stage::kLeft});
    const absl::Status status =
        OutOfMemoryAsStatus([&] { return ExchangeChildren(color, key, end); });
    if (IsOutOfMemory(status)) LeaveOutOfMemory();
    Add<std::chrono::nanoseconds>(total_time_, Clock::now() - start);
    // The barrier counts for one that goes well.
    if (!status.ok()) Add<std::uint64_t>(num_collectives_, 1);
    LOCKSTEP_RETURN_IF_ERROR(status);
  }
  // When this is over everyone has taken the child out of its maker's record, and has an end of it.
  LOCKSTEP_RETURN_IF_ERROR(Barrier());
  record.child = nullptr;
  return end;
}

absl::Status LocalCommunicator::ExchangeChildren(int color, int key,
                                                 std::unique_ptr<Communicator>& end) {
  LocalGroup::Record& record = MyRecord();
  record.Bring({.kind = CollectiveKind::kSplit}, world_size());
  record.color = color;
  record.key = key;
  LOCKSTEP_RETURN_IF_ERROR(Publish());
  std::vector<int> members;
  for (int other = 0; other < world_size(); ++other) {
    if (color >= 0 && group_->record(other, round_).color == color) members.push_back(other);
  }
  std::stable_sort(members.begin(), members.end(), [this](int a, int b) {
    return group_->record(a, round_).key < group_->record(b, round_).key;
  });
  {
    const OnExit moved(group_->slot(rank()), {epoch_, round_, Progress::Stage::kMoved});
    if (color >= 0 && members.front() == rank()) {
      auto made = MakeChild(members);
      LOCKSTEP_RETURN_IF_ERROR(OrFail(CollectiveKind::kSplit, made.status()));
      record.child = *std::move(made);
    }
  }
  LOCKSTEP_RETURN_IF_ERROR(Meet(Progress::Stage::kMoved, [] { return true; }));
  if (color < 0) return absl::OkStatus();
  const std::shared_ptr<LocalGroup>& child = group_->record(members.front(), round_).child;
  const auto me = std::find(members.begin(), members.end(), rank());
  end = std::make_unique<LocalCommunicator>(child, static_cast<int>(me - members.begin()));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<LocalGroup>> LocalCommunicator::MakeChild(
    absl::Span<const int> members) {
  std::vector<Stream> streams;
  std::vector<int> task_ranks;
  for (const int member : members) {
    streams.push_back(group_->streams()[member]);
    task_ranks.push_back(group_->task_ranks()[member]);
  }
  return LocalGroup::Create(std::move(streams), std::move(task_ranks), group_->observers(),
                            group_->options());
}

}  // namespace lockstep::internal
