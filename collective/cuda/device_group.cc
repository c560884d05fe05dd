#include "lockstep/collective/cuda/device_group.h"

#include <cstddef>
#include <new>
#include <thread>

#include "absl/time/time.h"

namespace lockstep::internal::cuda {
namespace {

// The first kernel of a stream starts when the device is idle (seen on an H100 under CUDA 13.0),
// and what runs there by then may be waiting for it. So it comes now, and does nothing.
cudaError_t RunFirstKernel(cudaStream_t stream) {
  const cudaError_t error = LaunchWritePattern(nullptr, /*words=*/0, /*seed=*/0, stream);
  return error == cudaSuccess ? cudaStreamSynchronize(stream) : error;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceGroup>> DeviceGroup::Create(absl::Span<const Stream> streams,
                                                                 std::chrono::nanoseconds timeout) {
  std::unique_ptr<DeviceGroup> group(new DeviceGroup(streams, timeout));
  const DeviceGuard guard(group->device(0));
  void* memory = nullptr;
  // Host and devices see it at one address.
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      group->device(0),
      cudaHostAlloc(&memory, sizeof(HostWords), cudaHostAllocPortable | cudaHostAllocMapped));
  group->words_ = new (memory) HostWords;
  LOCKSTEP_RETURN_IF_ERROR(group->MakeSides());
  return group;
}

absl::Status DeviceGroup::MakeSides() {
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const DeviceGuard guard(device(rank));
    Side& mine = side(rank);
    int lowest = 0;
    int highest = 0;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank),
                                  cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    // Peers wait for what is put aside, so it goes first wherever both could.
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device(rank), cudaStreamCreateWithPriority(&mine.stream, cudaStreamNonBlocking, highest));
    for (const cudaStream_t stream : {main(rank), mine.stream}) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), RunFirstKernel(stream));
    }
    for (cudaEvent_t* event : {&mine.entered, &mine.left}) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank),
                                    cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    }
  }
  return absl::OkStatus();
}

DeviceGroup::~DeviceGroup() {
  if (words_ == nullptr) return;
  // Nothing that waits is left behind, and nothing that uses what is freed now.
  Abort();
  for (int rank = 0; rank < num_ranks(); ++rank) Synchronize(rank).IgnoreError();
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const DeviceGuard guard(device(rank));
    const Side& mine = side(rank);
    for (const cudaEvent_t event : {mine.entered, mine.left}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (mine.stream != nullptr) cudaStreamDestroy(mine.stream);
  }
  const DeviceGuard guard(device(0));
  cudaFreeHost(words_);
}

Stream DeviceGroup::stream(int rank) const {
  return side(rank).in_use ? Stream(device(rank), side(rank).stream)
                           : streams_[static_cast<std::size_t>(rank)];
}

absl::Status DeviceGroup::EnterSideStream(int rank) {
  const DeviceGuard guard(device(rank));
  Side& mine = side(rank);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaEventRecord(mine.entered, main(rank)));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaStreamWaitEvent(mine.stream, mine.entered, 0));
  mine.in_use = true;
  return absl::OkStatus();
}

absl::Status DeviceGroup::LeaveSideStream(int rank) {
  const DeviceGuard guard(device(rank));
  Side& mine = side(rank);
  mine.in_use = false;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaEventRecord(mine.left, mine.stream));
  return absl::OkStatus();
}

absl::Status DeviceGroup::JoinSideStream(int rank) const {
  const DeviceGuard guard(device(rank));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaStreamWaitEvent(main(rank), side(rank).left, 0));
  return absl::OkStatus();
}

Watch DeviceGroup::watch(const Round& round) const {
  static_assert(offsetof(Report, call) == offsetof(WaitReport, call) &&
                offsetof(Report, count) == offsetof(WaitReport, count));
  return {.abort = reinterpret_cast<std::uint32_t*>(&words_->abort.value),
          .report = reinterpret_cast<WaitReport*>(&words_->reports[round.rank]),
          .call = CallOnDevice(round.mine(), round.number),
          .count = round.mine().in_count(),
          .lookout = nullptr,
          .timeout_ns = static_cast<std::uint64_t>(timeout_.count())};
}

bool DeviceGroup::IsCapturing(int rank) const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(native(rank), &status) == cudaSuccess &&
         status == cudaStreamCaptureStatusActive;
}

absl::Status DeviceGroup::Health() const {
  for (int rank = 0; rank < num_ranks(); ++rank) {
    // Acquire pairs with the release in Patience::Report.
    const std::uint64_t reported = words_->reports[rank].call.load(std::memory_order_acquire);
    if (reported == 0) continue;
    const WaitedCall waited =
        ReadWaitReport({reported, words_->reports[rank].count.load(std::memory_order_relaxed)});
    return absl::DeadlineExceededError(absl::StrCat(
        waited.description, ": the stream of rank ", waited.awaited_rank,
        " did not come to it within ", absl::ToDoubleSeconds(absl::FromChrono(timeout_)),
        " s; rank ", rank, " waited on ", device(rank).ToString()));
  }
  return absl::OkStatus();
}

absl::Status DeviceGroup::Synchronize(int rank) const {
  const DeviceGuard guard(device(rank));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaStreamSynchronize(main(rank)));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), cudaStreamSynchronize(side(rank).stream));
  return absl::OkStatus();
}

void DeviceGroup::Abort() { words_->abort.value.store(1, std::memory_order_relaxed); }

absl::Status DeviceGroup::Reset() {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const DeviceGuard guard(device(rank));
    for (const cudaStream_t stream : {main(rank), side(rank).stream}) {
      cudaError_t error = cudaErrorNotReady;
      while ((error = cudaStreamQuery(stream)) == cudaErrorNotReady) {
        if (std::chrono::steady_clock::now() > deadline) return StillBusy(rank);
        std::this_thread::yield();
      }
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device(rank), error);
    }
  }
  words_->abort.value.store(0, std::memory_order_relaxed);
  for (Report& report : words_->reports) report.call.store(0, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status DeviceGroup::StillBusy(int rank) const {
  return absl::DeadlineExceededError(absl::StrCat("reset: rank ", rank, "'s stream on ",
                                                  device(rank).ToString(), " has been busy for ",
                                                  absl::ToDoubleSeconds(absl::FromChrono(timeout_)),
                                                  " s more; try again when its work is done"));
}

}  // namespace lockstep::internal::cuda
