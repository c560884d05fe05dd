// The state that the ranks of one process share: the barrier word, a slot per rank, and why the
// group failed.
#ifndef LOCKSTEP_COLLECTIVE_LOCAL_GROUP_H_
#define LOCKSTEP_COLLECTIVE_LOCAL_GROUP_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "lockstep/collective/barrier_word.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/collective/transport.h"
#include "lockstep/runtime/fork_mark.h"
#include "lockstep/runtime/task_observer.h"

namespace lockstep::internal {

/// How far a rank has come, in one number that only its own thread writes: the epoch, the round in
/// it, and the stage of that round. Within an epoch it only grows.
struct Progress {
  enum class Stage : std::uint32_t { kLeft, kPublished, kMoved };

  std::uint32_t epoch;
  std::uint64_t round;
  Stage stage;

  std::uint64_t Pack() const {
    return (std::uint64_t{epoch} << 52) | (round << 2) | static_cast<std::uint64_t>(stage);
  }
  static Progress Unpack(std::uint64_t packed) {
    return {static_cast<std::uint32_t>(packed >> 52), (packed << 12) >> 14,
            static_cast<Stage>(packed & 3)};
  }
};

/// One group of ranks in this process.
///
/// A rank's slot is written by that rank's thread alone. It holds two records, for even and odd
/// rounds: a rank can be one round ahead of another, never two, so that nobody overwrites a record
/// that another still reads.
class LocalGroup final : public TaskObserver {
 public:
  struct Options {
    bool check_nan = false;
    /// The time-out is that of every wait of the group.
    TransportOptions transport;
  };

  /// What a rank brings to a round. The call is one cache line by itself: the only one that others
  /// read in most rounds.
  struct alignas(128) Record {
    /// Takes a call over, and whatever memory of the caller's it points to but the tensors': others
    /// may look at it while this rank leaves the round that it has given up.
    void Bring(const CollectiveCall& brought, int world_size);

    CollectiveCall call;
    CallDetails details;
    std::int64_t first_nan = -1;
    /// Split: which group, and where in it.
    int color = 0;
    int key = 0;
    /// Split: the new group, left here by its first rank.
    std::shared_ptr<LocalGroup> child = nullptr;

   private:
    // What `details` points to: once grown, they need no memory any more.
    absl::InlinedVector<std::int64_t, 4> shape_;
    std::vector<std::int64_t> send_counts_;
    std::vector<std::int64_t> receive_counts_;
  };

  static_assert(sizeof(CollectiveCall) == 64);

  struct alignas(128) Slot {
    Record records[2];
    /// The epoch that this rank belongs to, and whether it knows that this epoch has failed. Its
    /// own thread's; between two Runs the caller's.
    std::uint32_t epoch = 0;
    bool knows_failure = false;
    /// This rank's task is over.
    AnnotatedAtomic<bool> departed{false};
    alignas(128) AnnotatedAtomic<std::uint64_t> progress{0};
    /// Of the call that `progress` tells of, for those who have no part in it.
    std::atomic<CollectiveKind> kind{CollectiveKind::kBarrier};
  };

  /// A group of one rank per stream. `task_ranks` are the executor's numbers of these ranks, and
  /// `observers` the executor's; null for the host's own threads.
  static absl::StatusOr<std::shared_ptr<LocalGroup>> Create(
      std::vector<Stream> streams, std::vector<int> task_ranks,
      std::shared_ptr<TaskObservers> observers, Options options);
  ~LocalGroup() override;

  int world_size() const { return static_cast<int>(streams_.size()); }
  const std::vector<Stream>& streams() const { return streams_; }
  const std::vector<int>& task_ranks() const { return task_ranks_; }
  const std::shared_ptr<TaskObservers>& observers() const { return observers_; }
  const Options& options() const { return options_; }
  std::chrono::nanoseconds timeout() const { return options_.transport.timeout; }
  Transport& transport() const { return *transport_.transport; }
  DeviceWork& device_work() const { return *transport_.device_work; }
  const std::string& transport_reason() const { return transport_.reason; }
  BarrierWord<NativePlatform>& word() { return word_; }
  Slot& slot(int rank) { return slots_[rank]; }
  Record& record(int rank, std::uint64_t round) { return slot(rank).records[round & 1]; }

  /// In a forked child no other rank is there, and locks may be held for ever: nothing is called
  /// there but this.
  bool InForkedChild() const { return fork_mark_.InForkedChild(); }
  static absl::Status ForkedChildError(absl::string_view what);

  /// Makes an error. If there is no memory to make it, the error is OutOfMemory().
  using Describe = absl::FunctionRef<absl::Status()>;

  /// Explains the failure of `culprit` (see Explain) and poisons the word with it.
  void Fail(int culprit, std::uint32_t epoch, Describe error);

  /// Keeps `error` as the diagnosis of `culprit` (a rank; world_size() for others) in that epoch,
  /// unless the group has failed already. To be called before the word is poisoned.
  void Explain(int culprit, std::uint32_t epoch, Describe error);
  /// The diagnosis of `culprit` in that epoch.
  absl::Status Diagnosis(int culprit, std::uint32_t epoch);
  /// OK, or the diagnosis that poisoned the group.
  absl::Status FirstCause();

  /// kDeadlineExceeded: who is missing at `progress`, and what those who are there asked for. Only
  /// for a rank that is there.
  absl::Status DescribeMissing(const Progress& progress);
  /// kAborted: which ranks have ended their tasks.
  absl::Status DescribeDeparted();

  /// Fails the group with kAborted and the text of `cause`, for a caller that is not a rank.
  void AbortFromOutside(Describe cause);
  absl::Status Reset();
  /// Returns when no rank is inside a call, or false after the time-out.
  bool AwaitAllLeft();
  /// Returns when no other rank moves data of `round` any more, or false after the time-out.
  bool AwaitAllMoved(const Progress& progress);

  /// TaskObserver:
  void OnRunStart() override;
  void OnTaskEnd(int task_rank, const absl::Status& status) override;
  std::string WhereIs(int task_rank) const override;

 private:
  struct Cause {
    std::uint32_t epoch = 0;
    absl::StatusCode code = absl::StatusCode::kOk;
    // Text rather than a Status, so that every rank makes its own.
    std::string text;
  };

  LocalGroup(std::vector<Stream> streams, std::vector<int> task_ranks,
             std::shared_ptr<TaskObservers> observers, TransportChoice transport, Options options);

  static Cause MakeCause(std::uint32_t epoch, Describe error);
  // "; rank 1 is in another group's all_reduce #3", for each of `ranks` of which that is known.
  std::string Elsewhere(absl::Span<const int> ranks) const;

  const std::vector<Stream> streams_;
  const std::vector<int> task_ranks_;
  const std::shared_ptr<TaskObservers> observers_;
  TransportChoice transport_;
  const Options options_;
  const ForkMark fork_mark_;
  BarrierWord<NativePlatform> word_;
  std::vector<Slot> slots_;
  // On the way of failures alone: what is told is told under this lock.
  std::mutex cause_mutex_;
  std::vector<Cause> causes_;  // one per rank, then the outsiders'
  std::mutex reset_mutex_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_LOCAL_GROUP_H_
