// How long work on a stream takes, and which GPUs and CUDA these are. A build without CUDA
// has the same functions (cuda_absent.cc).
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_TIMER_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_TIMER_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "lockstep/runtime/stream.h"

namespace lockstep::tools {

/// Two marks on a stream, and the time between them: as the GPU sees it, or on the CPU, whose work
/// is done when its call returns, by the host's clock.
///
///   LOCKSTEP_RETURN_IF_ERROR(timer.Start());
///   ...   // queue work on the stream
///   LOCKSTEP_RETURN_IF_ERROR(timer.Stop());
///   LOCKSTEP_ASSIGN_OR_RETURN(const double microseconds, timer.Microseconds());
///
/// Used by one thread at a time.
class DeviceTimer {
 public:
  static absl::StatusOr<DeviceTimer> Create(const Stream& stream);

  /// Queue the marks; they return at once.
  absl::Status Start() { return Set(first_); }
  absl::Status Stop() { return Set(last_); }
  /// Waits until the second mark has been passed.
  absl::StatusOr<double> Microseconds();

 private:
  struct Mark {
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<void> event;  // null on the CPU
  };

  explicit DeviceTimer(const Stream& stream) : stream_(stream) {}
  absl::Status Set(Mark& mark);

  Stream stream_;
  Mark first_;
  Mark last_;
};

/// The version of CUDA that this was built with, "13.0"; empty in a build without CUDA.
std::string CudaVersion();
/// The newest version of CUDA that this machine's driver knows; "0.0" without a driver.
std::string CudaDriverVersion();
/// "NVIDIA H200"; "unknown GPU" where there is no such device.
std::string GpuName(Device device);
/// "2 x NVIDIA H200, CUDA 13.0, driver for CUDA 13.0". Empty if the devices are not GPUs.
std::string GpuLine(absl::Span<const Device> devices);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_TIMER_H_
