#include "lockstep/runtime/cuda/driver.h"

#include <optional>
#include <thread>

namespace lockstep::internal::cuda {
namespace {

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
                   Look("cuFuncSetAttribute", driver.func_set_attribute) &&
                   Look("cuStreamGetCtx", driver.stream_get_ctx) &&
                   Look("cuStreamQuery", driver.stream_query);
  if (all) return driver;
  cudaGetLastError();
  return std::nullopt;
}

}  // namespace

const Driver* GetDriver() {
  static const std::optional<Driver> driver = FindDriver();
  return driver.has_value() ? &*driver : nullptr;
}

cudaError_t AwaitStream(cudaStream_t stream, std::chrono::steady_clock::time_point deadline) {
  const Driver* const driver = GetDriver();
  for (;;) {
    // Asked of the driver: the runtime library would leave "not ready" behind as the thread's last
    // error. The two number errors alike.
    const cudaError_t error = driver == nullptr
                                  ? cudaStreamQuery(stream)
                                  : static_cast<cudaError_t>(driver->stream_query(stream));
    if (error != cudaErrorNotReady || std::chrono::steady_clock::now() > deadline) return error;
    std::this_thread::yield();
  }
}

cudaError_t AllowSharedBytes(const void* kernel, int bytes) {
  const Driver* const driver = GetDriver();
  if (driver == nullptr) return cudaErrorInsufficientDriver;
  cudaFunction_t function = nullptr;
  if (const cudaError_t error = cudaGetFuncBySymbol(&function, kernel); error != cudaSuccess)
    return error;
  // The two number errors alike.
  return static_cast<cudaError_t>(
      driver->func_set_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes));
}

}  // namespace lockstep::internal::cuda
