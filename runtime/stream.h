// The order in which one rank's device work runs.
#ifndef LOCKSTEP_RUNTIME_STREAM_H_
#define LOCKSTEP_RUNTIME_STREAM_H_

#include "lockstep/runtime/device.h"

namespace lockstep {

/// A queue of device work, not owned: a copy names the same queue. The CPU's stream runs each
/// operation at once on the calling thread, so a call's work is done when the call returns. A CUDA
/// stream (the host's or the executor's own) runs it later, in order, and is kept alive by its
/// maker. Any thread may copy, read and synchronize one; only its rank's thread queues work.
class Stream {
 public:
  /// The CPU's stream.
  constexpr Stream() = default;
  /// `native` is the device's own handle: a cudaStream_t for a CUDA device, null for the CPU.
  constexpr Stream(Device device, void* native) : device_(device), native_(native) {}

  constexpr Device device() const { return device_; }
  constexpr void* native() const { return native_; }

  /// Whether what is queued is being recorded for a CUDA graph rather than run.
  bool is_capturing() const;
  /// Returns when everything queued so far is done: on the CPU at once.
  absl::Status Synchronize() const;

 private:
  Device device_ = Device::Cpu();
  void* native_ = nullptr;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_STREAM_H_
