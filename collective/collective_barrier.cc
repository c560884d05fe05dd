#include "lockstep/collective/collective_barrier.h"

#include <numeric>
#include <utility>

#include "lockstep/collective/local_communicator.h"
#include "lockstep/collective/local_group.h"

namespace lockstep {
namespace {

// What communicator() returns for a rank that does not exist.
class NoRank final : public Communicator {
 public:
  explicit NoRank(int world_size) : Communicator(-1, world_size, Device::Cpu()) {}
  CommunicatorStats stats() const override { return {}; }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int, int) override { return Error(); }
  absl::Status Fail(absl::Status status) override { return status; }
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

absl::StatusOr<internal::LocalGroup::Options> Convert(const CollectiveBarrier::Options& options) {
  if (options.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("collective barrier: timeout ",
                                                   absl::FormatDuration(options.timeout),
                                                   "; it must be positive"));
  }
  // Ten years, so that a deadline always fits.
  const absl::Duration timeout = std::min(options.timeout, absl::Hours(24 * 3650));
  return internal::LocalGroup::Options{.check_nan = options.check_nan,
                                       .transport = {.kind = options.transport,
                                                     .timeout = absl::ToChronoNanoseconds(timeout),
                                                     .tuning = options.tuning}};
}

absl::StatusOr<std::shared_ptr<internal::LocalGroup>> MakeGroup(
    std::vector<Stream> streams, std::shared_ptr<internal::TaskObservers> observers,
    const CollectiveBarrier::Options& options) {
  constexpr int kMaxRanks = internal::BarrierWord<internal::NativePlatform>::kMaxRanks;
  if (streams.empty() || streams.size() > kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("collective barrier: ", streams.size(),
                                                   " ranks; there can be from 1 to ", kMaxRanks));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const internal::LocalGroup::Options converted, Convert(options));
  if (options.check_nan && !streams.front().device().is_cpu()) {
    return absl::UnavailableError(
        "collective barrier: check_nan asked for, but the ranks are on GPUs; it is for the CPU");
  }
  std::vector<int> ranks(streams.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return internal::LocalGroup::Create(std::move(streams), std::move(ranks), std::move(observers),
                                      converted);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveBarrier>> CollectiveBarrier::Create(Executor& executor,
                                                                             Options options) {
  return internal::OutOfMemoryAsStatus([&]() -> absl::StatusOr<std::unique_ptr<CollectiveBarrier>> {
    if (executor.observers()->InForkedChild()) {
      return absl::UnavailableError(
          "collective barrier: this is a forked child, but the executor is the parent's; make one "
          "in the child");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(auto group,
                              MakeGroup(executor.rank_streams(), executor.observers(), options));
    return std::unique_ptr<CollectiveBarrier>(new CollectiveBarrier(std::move(group)));
  });
}

absl::StatusOr<std::unique_ptr<CollectiveBarrier>> CollectiveBarrier::Create(
    absl::Span<const Stream> streams, Options options) {
  return internal::OutOfMemoryAsStatus([&]() -> absl::StatusOr<std::unique_ptr<CollectiveBarrier>> {
    LOCKSTEP_ASSIGN_OR_RETURN(auto group,
                              MakeGroup({streams.begin(), streams.end()}, nullptr, options));
    return std::unique_ptr<CollectiveBarrier>(new CollectiveBarrier(std::move(group)));
  });
}

CollectiveBarrier::CollectiveBarrier(std::shared_ptr<internal::LocalGroup> group)
    : group_(std::move(group)), no_rank_(std::make_unique<NoRank>(group_->world_size())) {
  for (int rank = 0; rank < group_->world_size(); ++rank) {
    communicators_.push_back(std::make_unique<internal::LocalCommunicator>(group_, rank));
  }
}

CollectiveBarrier::~CollectiveBarrier() {
  // The ranks that a forked child would wait for are the parent's.
  if (group_->InForkedChild()) return;
  group_->AbortFromOutside([] { return absl::AbortedError("the group is being destroyed"); });
  while (!group_->AwaitAllLeft()) {
  }
}

int CollectiveBarrier::world_size() const { return group_->world_size(); }

Communicator& CollectiveBarrier::communicator(int rank) {
  if (rank < 0 || rank >= world_size()) return *no_rank_;
  return *communicators_[rank];
}

void CollectiveBarrier::Abort(const absl::Status& cause) {
  if (!group_->InForkedChild()) group_->AbortFromOutside([&] { return cause; });
}

absl::Status CollectiveBarrier::Reset() {
  if (group_->InForkedChild()) return internal::LocalGroup::ForkedChildError("reset");
  return internal::OutOfMemoryAsStatus([this] { return group_->Reset(); });
}

absl::Status CollectiveBarrier::status() const {
  if (group_->InForkedChild()) return internal::LocalGroup::ForkedChildError("status");
  return internal::OutOfMemoryAsStatus([this] { return group_->FirstCause(); });
}

std::int64_t CollectiveBarrier::device_bytes(int rank) const {
  return rank >= 0 && rank < world_size() ? group_->transport().memory(rank).device_bytes : 0;
}
std::int64_t CollectiveBarrier::pinned_bytes(int rank) const {
  return rank >= 0 && rank < world_size() ? group_->transport().memory(rank).pinned_bytes : 0;
}

absl::string_view CollectiveBarrier::transport() const { return group_->transport().name(); }
absl::string_view CollectiveBarrier::transport_reason() const { return group_->transport_reason(); }

}  // namespace lockstep
