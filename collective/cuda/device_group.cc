#include "lockstep/collective/cuda/device_group.h"

#include <algorithm>
#include <new>

#include "absl/time/time.h"
#include "lockstep/runtime/cuda/driver.h"

namespace lockstep::internal::cuda {
namespace {

// What else may have kept a kernel from starting there.
std::string Neighbours(const Residency* room, Device device) {
  if (room == nullptr || room->is_alone()) return "";
  return absl::StrCat("; on ", device.ToString(), " groups wait on ",
                      Residency::NumLanes(device.index()), " streams");
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceGroup>> DeviceGroup::Create(absl::Span<const Stream> streams,
                                                                 std::chrono::nanoseconds timeout) {
  LOCKSTEP_CHECK(streams.size() <= kMaxRanks);
  LOCKSTEP_ASSIGN_OR_RETURN(PinnedMemory words,
                            PinnedMemory::Create(streams.front().device(), sizeof(HostWords)));
  std::vector<Side> sides;
  for (const Stream& stream : streams) {
    LOCKSTEP_ASSIGN_OR_RETURN(Side side, Side::Create(stream.device()));
    sides.push_back(std::move(side));
  }
  return std::unique_ptr<DeviceGroup>(
      new DeviceGroup(streams, timeout, std::move(words), std::move(sides)));
}

absl::StatusOr<DeviceGroup::Side> DeviceGroup::Side::Create(Device device) {
  const DeviceGuard guard(device);
  int lowest = 0;
  int highest = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  Side side;
  // Peers wait for what is put aside, so it goes first wherever both could.
  LOCKSTEP_ASSIGN_OR_RETURN(side.stream, OwnedStream::Create(device, highest));
  LOCKSTEP_ASSIGN_OR_RETURN(side.entered, Event::Create(device));
  LOCKSTEP_ASSIGN_OR_RETURN(side.left, Event::Create(device));
  return side;
}

DeviceGroup::DeviceGroup(absl::Span<const Stream> streams, std::chrono::nanoseconds timeout,
                         PinnedMemory words, std::vector<Side> sides)
    : streams_(streams.begin(), streams.end()),
      timeout_(timeout),
      memory_of_words_(std::move(words)),
      words_(new (memory_of_words_.get()) HostWords),
      sides_(std::move(sides)) {}

DeviceGroup::~DeviceGroup() { Drain(); }

void DeviceGroup::Drain() {
  Abort();
  for (int rank = 0; rank < world_size(); ++rank) {
    if (HasContext(device(rank))) Synchronize(rank).IgnoreError();
  }
}

std::vector<Device> DeviceGroup::devices() const {
  std::vector<Device> devices;
  for (const Stream& stream : streams_) devices.push_back(stream.device());
  return devices;
}

Stream DeviceGroup::stream(int rank, const CollectiveCall& call) const {
  return call.aside ? Stream(device(rank), side(rank).stream.get()) : stream(rank);
}

absl::StatusOr<std::vector<Lane>> DeviceGroup::Lanes(bool sides) const {
  std::vector<Lane> lanes;
  for (int rank = 0; rank < world_size(); ++rank) {
    Lane lane = {.gpu = device(rank).index(),
                 .multiprocessors = 0,
                 .stream = sides ? side(rank).stream.get() : main(rank)};
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device(rank),
        cudaDeviceGetAttribute(&lane.multiprocessors, cudaDevAttrMultiProcessorCount, lane.gpu));
    lanes.push_back(lane);
  }
  return lanes;
}

absl::Status DeviceGroup::TakeRoom(int wanted) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto lanes, Lanes(/*sides=*/false));
  LOCKSTEP_ASSIGN_OR_RETURN(room_, Residency::Take(std::move(lanes), wanted));
  return absl::OkStatus();
}

bool DeviceGroup::TakeSideRoom() {
  std::call_once(side_room_asked_, [this] {
    auto sides = Lanes(/*sides=*/true);
    has_side_room_ = sides.ok() && room_->TakeSides(*std::move(sides)).ok();
  });
  return has_side_room_;
}

int DeviceGroup::max_blocks(const Round& round) const {
  // Without room nobody is in company.
  return room_ == nullptr ? MaxBlocks(round.calls, Residency::kUnlimited, Residency::kUnlimited)
                          : MaxBlocks(round.calls, room_->max_blocks(), room_->max_blocks_aside());
}

absl::Status DeviceGroup::Record(int rank, const CollectiveCall& call, const Event& event) const {
  const DeviceGuard guard(device(rank));
  return LOCKSTEP_CUDA_STATUS(device(rank), cudaEventRecord(event.get(), native(rank, call)));
}

absl::Status DeviceGroup::Await(const Round& round, const Event& event) const {
  const DeviceGuard guard(device(round.rank));
  return LOCKSTEP_CUDA_STATUS(device(round.rank),
                              cudaStreamWaitEvent(native(round), event.get(), 0));
}

absl::Status DeviceGroup::Begin(int rank, CollectiveCall& call) {
  const DeviceGuard guard(device(rank));
  call.capturing = stream(rank).is_capturing();
  if (room_ != nullptr) {
    if (call.aside) call.aside = TakeSideRoom();
    call.in_company = !room_->is_alone();
  }
  if (!call.aside) return absl::OkStatus();
  const Side& mine = side(rank);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaEventRecord(mine.entered.get(), main(rank)));
  return LOCKSTEP_CUDA_STATUS(device(rank),
                              cudaStreamWaitEvent(mine.stream.get(), mine.entered.get(), 0));
}

absl::Status DeviceGroup::JoinSideStream(int rank) {
  const DeviceGuard guard(device(rank));
  const Side& mine = side(rank);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaEventRecord(mine.left.get(), mine.stream.get()));
  return LOCKSTEP_CUDA_STATUS(device(rank), cudaStreamWaitEvent(main(rank), mine.left.get(), 0));
}

Watch DeviceGroup::watch(const Round& round) const {
  return {.abort = reinterpret_cast<std::uint32_t*>(&words_->abort),
          .report = &words_->reports[round.rank],
          .call = ToWaitingCall(round.mine(), round.number),
          .lookout = nullptr,
          .timeout_ns = static_cast<std::uint64_t>(timeout_.count())};
}

absl::Status DeviceGroup::Health() const {
  for (int rank = 0; rank < world_size(); ++rank) {
    WaitReport& report = words_->reports[rank];
    // Acquire pairs with the release in Patience::Report.
    const std::uint64_t awaited = std::atomic_ref(report.awaited).load(std::memory_order_acquire);
    if (awaited == 0) continue;
    return absl::DeadlineExceededError(absl::StrCat(
        Describe(report.call), ": the stream of rank ", awaited - 1, " did not come to it within ",
        absl::ToDoubleSeconds(absl::FromChrono(timeout_)), " s; rank ", rank, " waited on ",
        device(rank).ToString(), Neighbours(room_.get(), device(static_cast<int>(awaited - 1)))));
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::Synchronize(int rank) const {
  const DeviceGuard guard(device(rank));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaStreamSynchronize(main(rank)));
  return LOCKSTEP_CUDA_STATUS(device(rank), cudaStreamSynchronize(side(rank).stream.get()));
}

absl::Status DeviceGroup::QueueFirstKernels() {
  for (int rank = 0; rank < world_size(); ++rank) {
    const DeviceGuard guard(device(rank));
    for (const cudaStream_t stream : {main(rank), side(rank).stream.get()}) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank),
                                    LaunchWritePattern(nullptr, /*words=*/0, /*seed=*/0, stream));
    }
  }
  return absl::OkStatus();
}

void DeviceGroup::Abort() { words_->abort.store(1, std::memory_order_relaxed); }

absl::Status DeviceGroup::AwaitIdle() const {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  for (int rank = 0; rank < world_size(); ++rank) {
    const DeviceGuard guard(device(rank));
    for (const cudaStream_t stream : {main(rank), side(rank).stream.get()}) {
      const cudaError_t error = AwaitStream(stream, deadline);
      if (error == cudaErrorNotReady) {
        return absl::DeadlineExceededError(
            absl::StrCat("rank ", rank, "'s stream on ", device(rank).ToString(),
                         " has been busy for ", absl::ToDoubleSeconds(absl::FromChrono(timeout_)),
                         " s more; try again when its work is done"));
      }
      LOCKSTEP_RETURN_IF_ERROR(ToStatus(error, "cudaStreamQuery", device(rank)));
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::Reset() {
  LOCKSTEP_RETURN_IF_ERROR(AwaitIdle());
  words_->abort.store(0, std::memory_order_relaxed);
  for (WaitReport& report : words_->reports) {
    std::atomic_ref(report.awaited).store(0, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

}  // namespace lockstep::internal::cuda
