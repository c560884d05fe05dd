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

// 13020 is 13.2.
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<DeviceTimer> DeviceTimer::Create(const Stream& stream) {
  DeviceTimer timer(stream);
  if (stream.device().is_cpu()) return timer;
  LOCKSTEP_ASSIGN_OR_RETURN(timer.first_.event, MakeEvent(stream.device()));
  LOCKSTEP_ASSIGN_OR_RETURN(timer.last_.event, MakeEvent(stream.device()));
  return timer;
}

absl::Status DeviceTimer::Set(Mark& mark) {
  mark.time = std::chrono::steady_clock::now();
  if (mark.event == nullptr) return absl::OkStatus();
  const DeviceGuard guard(stream_.device());
  return LOCKSTEP_CUDA_STATUS(stream_.device(),
                              cudaEventRecord(static_cast<cudaEvent_t>(mark.event.get()),
                                              static_cast<cudaStream_t>(stream_.native())));
}

absl::StatusOr<double> DeviceTimer::Microseconds() {
  const Device device = stream_.device();
  if (device.is_cpu())
    return std::chrono::duration<double, std::micro>(last_.time - first_.time).count();
  const DeviceGuard guard(device);
  const auto first = static_cast<cudaEvent_t>(first_.event.get());
  const auto last = static_cast<cudaEvent_t>(last_.event.get());
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
