#include "lockstep/collective/local_group.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "lockstep/collective/agreement.h"

namespace lockstep::internal {
namespace {

// Whether a rank whose progress is `other` has come to the stage of `mine`, or passed it.
bool HasReached(const Progress& other, const Progress& mine) {
  if (other.epoch != mine.epoch) return false;
  if (other.round != mine.round) return other.round > mine.round;
  return other.stage == Progress::Stage::kMoved || other.stage == mine.stage;
}

std::string LastCall(const Progress& progress, std::uint32_t epoch) {
  const bool none = progress.epoch != epoch || progress.round == 0;
  return none ? "none yet" : absl::StrCat("#", progress.round);
}

// Waits until other threads have made `done` true, or the time is up. Nobody wakes this thread, so
// it naps: not by a sleep of the standard library's, which pthread_cancel could end.
template <typename Done>
bool Await(std::chrono::nanoseconds timeout, Done done) {
  constexpr std::chrono::microseconds kNap{100};
  const Clock::time_point start = Clock::now();
  const Clock::time_point deadline = start + timeout;
  if (Patience<NativePlatform>().Await(start, deadline, done)) return true;
  const NativePlatform::Atomic<std::uint64_t> nobody(0);
  while (!done()) {
    const Clock::time_point now = Clock::now();
    if (now > deadline) return false;
    NativePlatform::Park(nobody, 0, now + kNap);
  }
  return true;
}

}  // namespace

void LocalGroup::Record::Bring(const CollectiveCall& brought, int world_size) {
  call = brought;
  first_nan = -1;
  child = nullptr;
  if (brought.details == nullptr) return;
  details = *brought.details;
  shape_.assign(details.shape.begin(), details.shape.end());
  details.shape = shape_;
  const auto keep = [world_size](const std::int64_t*& counts, std::vector<std::int64_t>& copy) {
    if (counts == nullptr) return;
    copy.assign(counts, counts + world_size);
    counts = copy.data();
  };
  keep(details.send_counts, send_counts_);
  keep(details.receive_counts, receive_counts_);
  call.details = &details;
}

absl::StatusOr<std::shared_ptr<LocalGroup>> LocalGroup::Create(
    std::vector<Stream> streams, std::vector<int> task_ranks,
    std::shared_ptr<TaskObservers> observers, Options options) {
  LOCKSTEP_ASSIGN_OR_RETURN(TransportChoice transport, ChooseTransport(streams, options.transport));
  std::shared_ptr<LocalGroup> group(new LocalGroup(std::move(streams), std::move(task_ranks),
                                                   std::move(observers), std::move(transport),
                                                   options));
  if (group->observers_ != nullptr) group->observers_->Add(group);
  return group;
}

LocalGroup::LocalGroup(std::vector<Stream> streams, std::vector<int> task_ranks,
                       std::shared_ptr<TaskObservers> observers, TransportChoice transport,
                       Options options)
    : streams_(std::move(streams)),
      task_ranks_(std::move(task_ranks)),
      observers_(std::move(observers)),
      transport_(std::move(transport)),
      options_(options),
      word_(world_size()),
      slots_(streams_.size()),
      causes_(streams_.size() + 1) {}

LocalGroup::~LocalGroup() {
  // The memory and the streams of a device stayed in the parent: touching them here is a crash.
  if (InForkedChild() && !streams_.front().device().is_cpu()) {
    static_cast<void>(transport_.transport.release());
    static_cast<void>(transport_.device_work.release());
  }
}

absl::Status LocalGroup::ForkedChildError(absl::string_view what) {
  return OutOfMemoryAsStatus([what] {
    return absl::UnavailableError(
        absl::StrCat(what,
                     ": this is a forked child, but the group is the parent's; make an "
                     "executor and a group in the child"));
  });
}

void LocalGroup::Fail(int culprit, std::uint32_t epoch, Describe error) {
  Explain(culprit, epoch, error);
  word_.Poison(culprit, epoch);
  // Where the epoch is over, the group is another one by now, and healthy.
  if (word_.health().culprit >= 0) device_work().Abort();
}

LocalGroup::Cause LocalGroup::MakeCause(std::uint32_t epoch, Describe error) {
  Cause cause{epoch, absl::StatusCode::kResourceExhausted, ""};
  OutOfMemoryAsStatus([&] {
    const absl::Status status = error();
    cause.text = std::string(status.message());
    cause.code = status.code();
    return status;
  }).IgnoreError();
  return cause;
}

void LocalGroup::Explain(int culprit, std::uint32_t epoch, Describe error) {
  // Made before the lock is taken: it may ask other groups.
  Cause cause = MakeCause(epoch, error);
  const std::lock_guard lock(cause_mutex_);
  if (word_.health().culprit >= 0) return;
  causes_[culprit] = std::move(cause);
}

absl::Status LocalGroup::Diagnosis(int culprit, std::uint32_t epoch) {
  const std::lock_guard lock(cause_mutex_);
  const Cause& cause = causes_[culprit];
  if (cause.epoch != epoch)
    return absl::CancelledError("the group failed and has been reset meanwhile");
  const absl::Status status(cause.code, cause.text);
  if (!IsOutOfMemory(status)) return status;
  return absl::ResourceExhaustedError(culprit < world_size()
                                          ? absl::StrCat("rank ", culprit, " ran out of memory")
                                          : "whoever aborted the group ran out of memory");
}

absl::Status LocalGroup::FirstCause() {
  const auto health = word_.health();
  return health.culprit < 0 ? absl::OkStatus() : Diagnosis(health.culprit, health.epoch);
}

absl::Status LocalGroup::DescribeMissing(const Progress& progress) {
  std::vector<int> missing;
  std::string last_calls;
  std::string asked;
  std::vector<int> waiting;
  bool all_alike = true;
  std::string first_asked;
  for (int rank = 0; rank < world_size(); ++rank) {
    const Progress other = Progress::Unpack(slot(rank).progress.load(std::memory_order_acquire));
    if (!HasReached(other, progress)) {
      missing.push_back(rank);
      absl::StrAppend(&last_calls, last_calls.empty() ? "" : ", ", LastCall(other, progress.epoch));
      continue;
    }
    const std::string call = record(rank, progress.round).call.Describe(progress.round);
    waiting.push_back(rank);
    if (first_asked.empty()) first_asked = call;
    all_alike = all_alike && call == first_asked;
    absl::StrAppend(&asked, asked.empty() ? "" : "; ", "rank ", rank, " asked for ", call);
  }
  const double seconds = absl::ToDoubleSeconds(absl::FromChrono(timeout()));
  const bool moving = progress.stage == Progress::Stage::kMoved;
  std::string who = missing.empty()
                        ? absl::StrCat("the last rank came just as ", seconds, " s were over")
                        : absl::StrCat(RankList(missing),
                                       moving ? " did not finish moving data" : " did not arrive",
                                       " within ", seconds, " s");
  if (!missing.empty() && !moving) absl::StrAppend(&who, " (last call: ", last_calls, ")");
  return absl::DeadlineExceededError(
      all_alike ? absl::StrCat(first_asked, ": ", who, "; ", RankList(waiting), " waited",
                               Elsewhere(missing))
                : absl::StrCat("#", progress.round, ": ", who, "; ", asked, Elsewhere(missing)));
}

std::string LocalGroup::Elsewhere(absl::Span<const int> ranks) const {
  std::string text;
  if (observers_ == nullptr) return text;
  observers_->ForEach([&](const TaskObserver& group) {
    if (&group == this) return;
    for (const int rank : ranks) {
      const std::string where = group.WhereIs(task_ranks_[rank]);
      if (where.empty()) continue;
      absl::StrAppend(&text, "; rank ", rank, " is in another group's ", where);
    }
  });
  return text;
}

absl::Status LocalGroup::DescribeDeparted() {
  std::vector<int> departed;
  std::string last_calls;
  for (int rank = 0; rank < world_size(); ++rank) {
    if (!slot(rank).departed.load(std::memory_order_acquire)) continue;
    departed.push_back(rank);
    const Progress progress = Progress::Unpack(slot(rank).progress.load(std::memory_order_relaxed));
    absl::StrAppend(&last_calls, last_calls.empty() ? "" : ", ",
                    LastCall(progress, progress.epoch));
  }
  return absl::AbortedError(absl::StrCat(
      RankList(departed), " ended the task and will not arrive (last call: ", last_calls, ")"));
}

void LocalGroup::AbortFromOutside(Describe cause) {
  Cause made = MakeCause(0, [&] { return absl::AbortedError(cause().message()); });
  const std::lock_guard lock(cause_mutex_);
  const auto health = word_.health();
  if (health.culprit >= 0) return;
  made.epoch = health.epoch;
  causes_.back() = std::move(made);
  word_.Poison(world_size(), health.epoch);
  device_work().Abort();
}

absl::Status LocalGroup::Reset() {
  const std::lock_guard lock(reset_mutex_);
  if (word_.health().culprit < 0) return absl::OkStatus();
  if (!AwaitAllLeft()) {
    return absl::DeadlineExceededError(
        absl::StrCat("reset: a rank has been inside the failed round for ",
                     absl::ToDoubleSeconds(absl::FromChrono(timeout())),
                     " s more; try again when it has returned"));
  }
  LOCKSTEP_RETURN_IF_ERROR(device_work().Reset());
  LOCKSTEP_RETURN_IF_ERROR(transport().Reset());
  word_.Reset();
  return absl::OkStatus();
}

bool LocalGroup::AwaitAllLeft() {
  return Await(timeout(), [this] {
    return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
      // See LocalCommunicator::Publish.
      return Progress::Unpack(slot.progress.load(std::memory_order_seq_cst)).stage ==
             Progress::Stage::kLeft;
    });
  });
}

bool LocalGroup::AwaitAllMoved(const Progress& progress) {
  const std::uint64_t moving =
      Progress{progress.epoch, progress.round, Progress::Stage::kPublished}.Pack();
  return Await(timeout(), [this, moving] {
    return std::none_of(slots_.begin(), slots_.end(), [moving](const Slot& slot) {
      return slot.progress.load(std::memory_order_acquire) == moving;
    });
  });
}

void LocalGroup::OnRunStart() {
  const auto health = word_.health();
  for (Slot& slot : slots_) {
    slot.epoch = health.epoch;
    // So that all of them are told alike.
    slot.knows_failure = health.culprit >= 0;
    slot.departed.store(false, std::memory_order_relaxed);
  }
  word_.Return();
}

void LocalGroup::OnTaskEnd(int task_rank, const absl::Status& status) {
  const auto found = std::find(task_ranks_.begin(), task_ranks_.end(), task_rank);
  const auto failure = [&] {
    return absl::AbortedError(absl::StrCat("rank ", task_rank, " failed: ", status.ToString()));
  };
  if (found == task_ranks_.end()) {
    if (!status.ok()) AbortFromOutside(failure);
    return;
  }
  const int rank = static_cast<int>(found - task_ranks_.begin());
  if (!status.ok()) Fail(rank, word_.health().epoch, failure);
  slot(rank).departed.store(true, std::memory_order_release);
  // Whoever waits for it finds this, and explains it.
  word_.Depart();
  if (word_.health().culprit < 0) return;
  slot(rank).knows_failure = true;
  device_work().Abort();
}

std::string LocalGroup::WhereIs(int task_rank) const {
  const auto found = std::find(task_ranks_.begin(), task_ranks_.end(), task_rank);
  if (found == task_ranks_.end()) return "";
  const Slot& slot = slots_[found - task_ranks_.begin()];
  // The rank may leave its call between the two loads: then this tells of the one before.
  const Progress progress = Progress::Unpack(slot.progress.load(std::memory_order_acquire));
  if (progress.stage == Progress::Stage::kLeft) return "";
  return absl::StrCat(Name(slot.kind.load(std::memory_order_relaxed)), " #", progress.round);
}

}  // namespace lockstep::internal
