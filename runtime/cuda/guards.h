// What the calling thread has in CUDA, its device, its context and its capture mode: changed for a
// scope, and put back.
#ifndef LOCKSTEP_RUNTIME_CUDA_GUARDS_H_
#define LOCKSTEP_RUNTIME_CUDA_GUARDS_H_

#include <cuda_runtime_api.h>

#include "lockstep/runtime/device.h"

/// A context of the driver's.
struct CUctx_st;

namespace lockstep::internal::cuda {

/// Whether the runtime library has a context on the device. Makes none.
bool HasContext(Device device);

/// The context of `device` that the runtime library works in, made if there is none yet. Null: it
/// cannot be, and the next call of the runtime library says why.
CUctx_st* PrimaryContext(Device device);

/// Lets the calling thread work on a device, in the context that the runtime library has there, and
/// puts back what was current before at the end of the scope: the same device, the same context of
/// the driver (a host's own, or none). Every function that calls CUDA on a thread which may be the
/// host's does so under a guard; with it, a first call makes no context on another device either.
/// Costs a load from the driver where the device is current already.
class DeviceGuard {
 public:
  explicit DeviceGuard(Device device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  CUctx_st* former_ = nullptr;
  bool changed_ = false;
};

/// While it lives, the calling thread may make calls that a graph's capture on it forbids: they
/// are not recorded.
class AnyCall {
 public:
  AnyCall() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~AnyCall() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  AnyCall(const AnyCall&) = delete;
  AnyCall& operator=(const AnyCall&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_GUARDS_H_
