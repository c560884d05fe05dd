#include "lockstep/runtime/cuda/guards.h"

#include <array>
#include <atomic>

#include "lockstep/runtime/cuda/driver.h"

namespace lockstep::internal::cuda {
namespace {

// Devices whose contexts are remembered.
constexpr std::size_t kMaxDevices = 64;

// Of each device, as it was last seen: another one after a cudaDeviceReset of the host's.
std::array<std::atomic<CUcontext>, kMaxDevices> primary_contexts = {};

std::atomic<CUcontext>& Remembered(Device device) {
  return primary_contexts[static_cast<std::size_t>(device.index()) % kMaxDevices];
}

}  // namespace

bool HasContext(Device device) {
  const Driver* const driver = GetDriver();
  unsigned flags = 0;
  int active = 0;
  // The runtime library numbers devices as the driver does.
  return driver != nullptr &&
         driver->primary_ctx_get_state(device.index(), &flags, &active) == CUDA_SUCCESS &&
         active != 0;
}

CUcontext PrimaryContext(Device device) {
  std::atomic<CUcontext>& remembered = Remembered(device);
  CUcontext context = remembered.load(std::memory_order_relaxed);
  if (context != nullptr && HasContext(device)) return context;
  // Held as long as the process lasts, as the runtime library does.
  const Driver* const driver = GetDriver();
  if (driver == nullptr || driver->primary_ctx_retain(&context, device.index()) != CUDA_SUCCESS) {
    return nullptr;
  }
  remembered.store(context, std::memory_order_relaxed);
  return context;
}

DeviceGuard::DeviceGuard(Device device) {
  const Driver* const driver = GetDriver();
  if (driver != nullptr && driver->ctx_get_current(&former_) == CUDA_SUCCESS) {
    if (former_ != nullptr && former_ == Remembered(device).load(std::memory_order_relaxed)) return;
    const CUcontext context = PrimaryContext(device);
    if (context != nullptr && context == former_) return;
    changed_ = true;
    if (context != nullptr && driver->ctx_set_current(context) == CUDA_SUCCESS) return;
  }
  // So that what is called next fails on this device, and does not succeed on another.
  cudaSetDevice(device.index());
}

DeviceGuard::~DeviceGuard() {
  if (changed_) GetDriver()->ctx_set_current(former_);
}

}  // namespace lockstep::internal::cuda
