// A build without CUDA.
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

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

absl::Status BenchLimits(const BenchOptions&) {
  return absl::UnavailableError("limits: they are those of GPUs, and this build has no CUDA");
}

absl::StatusOr<std::vector<PeerLink>> MeasureLinksOf(Device, Device) {
  return absl::UnavailableError("links: they are those of GPUs, and this build has no CUDA");
}

}  // namespace lockstep::tools
