#include "lockstep/runtime/cuda/driver.h"

#include <array>
#include <atomic>
#include <optional>

#include "lockstep/runtime/cuda/error.h"

namespace lockstep::internal::cuda {
namespace {

// Devices whose contexts are remembered.
constexpr std::size_t kMaxDevices = 64;

// Of each device, as it was last seen: another one after a cudaDeviceReset of the host's.
std::array<std::atomic<CUcontext>, kMaxDevices> primary_contexts = {};

template <typename Function>
bool Look(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result);
#endif
  function = reinterpret_cast<Function>(found);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess;
}

std::optional<Driver> FindDriver() {
  Driver driver;
  const bool all = Look("cuInit", driver.init) && driver.init(0) == CUDA_SUCCESS &&
                   Look("cuCtxGetCurrent", driver.ctx_get_current) &&
                   Look("cuCtxSetCurrent", driver.ctx_set_current) &&
                   Look("cuCtxEnablePeerAccess", driver.ctx_enable_peer_access) &&
                   Look("cuDevicePrimaryCtxRetain", driver.primary_ctx_retain) &&
                   Look("cuDevicePrimaryCtxGetState", driver.primary_ctx_get_state) &&
                   Look("cuMemPoolGetAccess", driver.mem_pool_get_access) &&
                   Look("cuPointerGetAttribute", driver.pointer_get_attribute) &&
                   Look("cuStreamGetCtx", driver.stream_get_ctx) &&
                   Look("cuStreamQuery", driver.stream_query);
  if (all) return driver;
  cudaGetLastError();
  return std::nullopt;
}

std::atomic<CUcontext>& Remembered(Device device) {
  return primary_contexts[static_cast<std::size_t>(device.index()) % kMaxDevices];
}

}  // namespace

const Driver* GetDriver() {
  static const std::optional<Driver> driver = FindDriver();
  return driver.has_value() ? &*driver : nullptr;
}

cudaError_t QueryStream(cudaStream_t stream) {
  const Driver* const driver = GetDriver();
  // The two libraries number errors alike.
  return driver == nullptr ? cudaStreamQuery(stream)
                           : static_cast<cudaError_t>(driver->stream_query(stream));
}

bool HasContext(Device device) {
  const Driver* const driver = GetDriver();
  unsigned flags = 0;
  int active = 0;
  // The runtime library numbers devices as the driver does.
  return driver != nullptr &&
         driver->primary_ctx_get_state(device.index(), &flags, &active) == CUDA_SUCCESS &&
         active != 0;
}

CUcontext PrimaryContext(const Driver& driver, Device device) {
  std::atomic<CUcontext>& remembered = Remembered(device);
  CUcontext context = remembered.load(std::memory_order_relaxed);
  if (context != nullptr && HasContext(device)) return context;
  // Held as long as the process lasts, as the runtime library does.
  if (driver.primary_ctx_retain(&context, device.index()) != CUDA_SUCCESS) return nullptr;
  remembered.store(context, std::memory_order_relaxed);
  return context;
}

DeviceGuard::DeviceGuard(Device device) {
  const Driver* const driver = GetDriver();
  if (driver != nullptr && driver->ctx_get_current(&former_) == CUDA_SUCCESS) {
    if (former_ != nullptr && former_ == Remembered(device).load(std::memory_order_relaxed)) return;
    const CUcontext context = PrimaryContext(*driver, device);
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
