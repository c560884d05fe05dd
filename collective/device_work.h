// The life of the devices that the ranks of a group queue their work on.
#ifndef LOCKSTEP_COLLECTIVE_DEVICE_WORK_H_
#define LOCKSTEP_COLLECTIVE_DEVICE_WORK_H_

#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/status.h"

namespace lockstep::internal {

/// What becomes of work that is queued, whichever transport queued it. As it is, this is the CPU's:
/// there, a call's work is done when the call returns.
class DeviceWork {
 public:
  virtual ~DeviceWork() = default;

  /// Before a rank's call queues anything. Says in the call whether what it queues is recorded for
  /// a CUDA graph rather than run. What a call aside queues goes behind all that the rank's stream
  /// holds now, but beside what the stream is given later.
  virtual absl::Status Begin(int /*rank*/, CollectiveCall& /*call*/) { return absl::OkStatus(); }
  /// Whatever this rank's stream is given from here on waits for all that was put aside.
  virtual absl::Status JoinSideStream(int /*rank*/) { return absl::OkStatus(); }

  /// OK, or how work queued earlier has failed meanwhile. Costs a few loads.
  virtual absl::Status Health() const { return absl::OkStatus(); }
  /// Returns when this rank's queued work is done.
  virtual absl::Status Synchronize(int /*rank*/) const { return absl::OkStatus(); }
  /// Work that waits for another rank gives up, within 5 ms. From any thread, any number of times.
  virtual void Abort() {}
  /// After Abort, while no rank is in a call: waits until all queued work is done, and lets work
  /// wait again. kInternal: a device failed for good.
  virtual absl::Status Reset() { return absl::OkStatus(); }
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_DEVICE_WORK_H_
