// One rank's end of a LocalGroup.
#ifndef LOCKSTEP_COLLECTIVE_LOCAL_COMMUNICATOR_H_
#define LOCKSTEP_COLLECTIVE_LOCAL_COMMUNICATOR_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "lockstep/collective/communicator.h"
#include "lockstep/collective/local_group.h"

namespace lockstep::internal {

// On cache lines of its own: every round writes to it.
class alignas(128) LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank);

  CommunicatorStats stats() const override;
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override;
  absl::Status Fail(absl::Status status) override;
  absl::Status Synchronize() override;

 protected:
  absl::Status Execute(const CollectiveCall& call) override;
  absl::Status Refuse(const CollectiveCall& call, absl::Status error) override;
  absl::Status JoinSideStream() override;

 private:
  using Word = BarrierWord<NativePlatform>;

  // The failure of the group, if this rank knows of one, or suspects one. Forgets one that was
  // healed.
  std::optional<Word::Health> KnownFailure(bool suspects);
  // Begins a round, unless this rank is in another call, or knows that the group has failed.
  absl::Status Enter(CollectiveKind kind);
  absl::Status RunRound(const CollectiveCall& call);
  // Shows this rank's record to the others and meets them: OK when all agree.
  absl::Status Publish();
  // Called by the rank that comes last.
  bool AllAgree();
  absl::Status CheckNoNan();
  absl::Status Move(const Round& round);
  // Fails the round for all when this rank has no memory to go on with, and returns when no other
  // rank touches this rank's any more.
  void LeaveOutOfMemory();
  // Passes `status` on; an error fails the round for all, and tells of call and rank.
  absl::Status OrFail(CollectiveKind kind, absl::Status status);
  template <typename Agree>
  absl::Status Meet(Progress::Stage stage, Agree&& agree);
  // What a call on a poisoned group returns.
  absl::Status Poisoned(absl::string_view what, const Word::Health& health);
  // What a call that belongs to a round from before a Reset() returns.
  absl::Status Stale(CollectiveKind kind) const;
  absl::Status Failed(const Word::Outcome& outcome, Progress::Stage stage);
  // Leaves this rank's end of its new group in `end`: null without a color.
  absl::Status ExchangeChildren(int color, int key, std::unique_ptr<Communicator>& end);
  absl::StatusOr<std::shared_ptr<LocalGroup>> MakeChild(absl::Span<const int> members);

  LocalGroup::Record& MyRecord() { return group_->record(rank(), round_); }
  absl::Span<const CollectiveCall* const> calls() const { return calls_[round_ & 1]; }

  const std::shared_ptr<LocalGroup> group_;
  Patience<NativePlatform> patience_;
  std::uint32_t epoch_ = 0;
  std::uint64_t round_ = 0;
  // There may be calls aside that the rank's stream has not been made to wait for.
  bool side_stream_pending_ = false;
  // Where every rank's call stands, in even and in odd rounds.
  std::vector<const CollectiveCall*> calls_[2];
  // Written by the rank's thread alone, read by any.
  std::atomic<std::uint64_t> num_collectives_{0};
  std::atomic<std::uint64_t> num_last_arrivals_{0};
  std::atomic<std::chrono::nanoseconds> total_wait_{};
  std::atomic<std::chrono::nanoseconds> max_wait_{};
  std::atomic<std::chrono::nanoseconds> total_time_{};
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_LOCAL_COMMUNICATOR_H_
