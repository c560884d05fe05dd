#include "lockstep/tools/lockstep/bench/device_timer.h"

namespace lockstep::tools {
namespace {

absl::Status NoCuda() { return absl::UnavailableError("device timer: this build has no CUDA"); }

}  // namespace

absl::StatusOr<DeviceTimer> DeviceTimer::Create(const Stream&) { return NoCuda(); }
absl::Status DeviceTimer::Start() { return NoCuda(); }
absl::Status DeviceTimer::Stop() { return NoCuda(); }
absl::StatusOr<double> DeviceTimer::Microseconds() { return NoCuda(); }

std::string CudaVersion() { return ""; }
std::string CudaDriverVersion() { return "0.0"; }
std::string GpuName(Device) { return "unknown GPU"; }
std::string GpuLine(absl::Span<const Device>) { return ""; }

}  // namespace lockstep::tools
