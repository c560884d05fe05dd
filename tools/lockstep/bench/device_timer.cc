#include "lockstep/tools/lockstep/bench/device_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_join.h"
#include "lockstep/runtime/cuda/handles.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

absl::StatusOr<std::shared_ptr<void>> MakeEvent(Device device) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto event, internal::cuda::Event::Create(device, cudaEventDefault));
  return std::move(event).Share();
}

absl::Status Mark(const Stream& stream, const std::shared_ptr<void>& event) {
  const DeviceGuard guard(stream.device());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(stream.device(),
                                cudaEventRecord(static_cast<cudaEvent_t>(event.get()),
                                                static_cast<cudaStream_t>(stream.native())));
  return absl::OkStatus();
}

// 13020 is 13.2.
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<DeviceTimer> DeviceTimer::Create(const Stream& stream) {
  if (stream.device().is_cpu()) {
    return absl::UnavailableError("device timer: the stream is on the CPU; it must be on a GPU");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto first, MakeEvent(stream.device()));
  LOCKSTEP_ASSIGN_OR_RETURN(auto last, MakeEvent(stream.device()));
  return DeviceTimer(stream, std::move(first), std::move(last));
}

absl::Status DeviceTimer::Start() { return Mark(stream_, first_); }
absl::Status DeviceTimer::Stop() { return Mark(stream_, last_); }

absl::StatusOr<double> DeviceTimer::Microseconds() {
  const Device device = stream_.device();
  const DeviceGuard guard(device);
  const auto first = static_cast<cudaEvent_t>(first_.get());
  const auto last = static_cast<cudaEvent_t>(last_.get());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaEventSynchronize(last));
  float milliseconds = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaEventElapsedTime(&milliseconds, first, last));
  return double{milliseconds} * 1e3;
}

std::string CudaVersion() { return VersionText(CUDART_VERSION); }

std::string CudaDriverVersion() {
  int version = 0;
  return VersionText(cudaDriverGetVersion(&version) == cudaSuccess ? version : 0);
}

std::string GpuName(Device device) {
  cudaDeviceProp properties;
  if (device.is_cpu() || cudaGetDeviceProperties(&properties, device.index()) != cudaSuccess) {
    cudaGetLastError();
    return "unknown GPU";
  }
  return properties.name;
}

std::string GpuLine(absl::Span<const Device> devices) {
  // Each GPU once, however many ranks it has.
  std::vector<Device> gpus;
  for (const Device& device : devices) {
    if (!device.is_cpu() && std::find(gpus.begin(), gpus.end(), device) == gpus.end())
      gpus.push_back(device);
  }
  if (gpus.empty()) return "";
  std::vector<std::string> names;
  for (const Device& gpu : gpus) names.push_back(GpuName(gpu));
  const bool alike =
      std::count(names.begin(), names.end(), names[0]) == static_cast<std::ptrdiff_t>(names.size());
  return absl::StrCat(
      alike ? absl::StrCat(names.size(), " x ", names[0]) : absl::StrJoin(names, ", "), ", CUDA ",
      CudaVersion(), ", driver for CUDA ", CudaDriverVersion());
}

}  // namespace lockstep::tools
