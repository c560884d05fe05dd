#include "lockstep/tools/lockstep/bench/device_timer.h"

namespace lockstep::tools {

absl::StatusOr<DeviceTimer> DeviceTimer::Create(const Stream& stream) {
  return DeviceTimer(stream);
}
absl::Status DeviceTimer::Set(Mark& mark) {
  mark.time = std::chrono::steady_clock::now();
  return absl::OkStatus();
}
absl::StatusOr<double> DeviceTimer::Microseconds() {
  return std::chrono::duration<double, std::micro>(last_.time - first_.time).count();
}

std::string CudaVersion() { return ""; }
std::string CudaDriverVersion() { return "0.0"; }
std::string GpuName(Device) { return "unknown GPU"; }
std::string GpuLine(absl::Span<const Device>) { return ""; }

}  // namespace lockstep::tools
