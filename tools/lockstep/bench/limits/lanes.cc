#include "lockstep/tools/lockstep/bench/limits/lanes.h"

#include <algorithm>
#include <cstring>

#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

constexpr double kMaxRepeats = 200;
constexpr int kPattern = 0x5A;

}  // namespace

absl::StatusOr<std::shared_ptr<void>> DeviceMemory(Device device, std::int64_t bytes) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, internal::cuda::DeviceMemory::Create(device, bytes));
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaMemset(memory.get(), kPattern, static_cast<std::size_t>(bytes)));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaDeviceSynchronize());
  return std::move(memory).Share();
}

absl::StatusOr<std::shared_ptr<void>> PinnedMemory(Device device, std::int64_t bytes) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, internal::cuda::PinnedMemory::Create(device, bytes));
  std::memset(memory.get(), kPattern, static_cast<std::size_t>(bytes));
  return std::move(memory).Share();
}

absl::Status LimitLanes::Add(Device device, Queue queue) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<void> owner, internal::cuda::MakeStream(device));
  const Stream stream(device, owner.get());
  LOCKSTEP_ASSIGN_OR_RETURN(DeviceTimer timer, DeviceTimer::Create(stream));
  lanes_.push_back({stream, std::move(owner), std::move(timer), std::move(queue)});
  return absl::OkStatus();
}

absl::StatusOr<double> LimitLanes::Round(int repeats) {
  for (Lane& lane : lanes_) LOCKSTEP_RETURN_IF_ERROR(lane.timer.Start());
  for (int i = 0; i < repeats; ++i) {
    for (Lane& lane : lanes_) {
      const Device device = lane.stream.device();
      const DeviceGuard guard(device);
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                    lane.queue(static_cast<cudaStream_t>(lane.stream.native())));
    }
  }
  for (Lane& lane : lanes_) LOCKSTEP_RETURN_IF_ERROR(lane.timer.Stop());
  double slowest = 0;
  for (Lane& lane : lanes_) {
    LOCKSTEP_ASSIGN_OR_RETURN(const double microseconds, lane.timer.Microseconds());
    slowest = std::max(slowest, microseconds / repeats);
  }
  return slowest;
}

absl::StatusOr<Times> LimitLanes::Measure(const LimitRounds& how) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Times> times, MeasureInTurns({this}, how));
  return times[0];
}

absl::StatusOr<std::vector<Times>> LimitLanes::MeasureInTurns(
    absl::Span<LimitLanes* const> contestants, const LimitRounds& how) {
  std::vector<int> repeats;
  for (LimitLanes* const lanes : contestants) {
    LOCKSTEP_RETURN_IF_ERROR(lanes->Round(how.least).status());
    LOCKSTEP_ASSIGN_OR_RETURN(const double probe, lanes->Round(how.least));
    repeats.push_back(
        static_cast<int>(std::clamp(how.microseconds / probe, double(how.least), kMaxRepeats)));
  }
  std::vector<std::vector<double>> rounds(contestants.size());
  for (int round = 0; round < how.rounds; ++round) {
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const double microseconds, contestants[i]->Round(repeats[i]));
      rounds[i].push_back(microseconds);
    }
  }
  std::vector<Times> times;
  for (std::vector<double>& of_one : rounds) times.push_back(Summarize(std::move(of_one)));
  return times;
}

}  // namespace lockstep::tools
