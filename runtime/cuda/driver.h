// What the runtime library does not offer and the driver does: the context that is current, and
// questions whose answer is not an error of the host's thread. The driver is looked up when the
// program runs, so that one program runs where there is none.
#ifndef LOCKSTEP_RUNTIME_CUDA_DRIVER_H_
#define LOCKSTEP_RUNTIME_CUDA_DRIVER_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <chrono>

namespace lockstep::internal::cuda {

/// The driver's functions that lockstep calls. None of them touches what cudaGetLastError() says.
struct Driver {
  decltype(&cuInit) init = nullptr;
  decltype(&cuCtxGetCurrent) ctx_get_current = nullptr;
  decltype(&cuCtxSetCurrent) ctx_set_current = nullptr;
  decltype(&cuCtxEnablePeerAccess) ctx_enable_peer_access = nullptr;
  decltype(&cuDevicePrimaryCtxRetain) primary_ctx_retain = nullptr;
  decltype(&cuDevicePrimaryCtxGetState) primary_ctx_get_state = nullptr;
  decltype(&cuMemPoolGetAccess) mem_pool_get_access = nullptr;
  decltype(&cuPointerGetAttribute) pointer_get_attribute = nullptr;
  decltype(&cuFuncSetAttribute) func_set_attribute = nullptr;
  decltype(&cuStreamGetCtx) stream_get_ctx = nullptr;
  decltype(&cuStreamQuery) stream_query = nullptr;
};

/// Null where there is no driver: then there are no devices either.
const Driver* GetDriver();

/// Returns when the stream's work is done or has failed; cudaErrorNotReady: not by then. Leaves no
/// error behind.
cudaError_t AwaitStream(cudaStream_t stream, std::chrono::steady_clock::time_point deadline);

/// Allows a kernel's blocks so many bytes of shared memory given at the launch, on the current
/// device. As cudaFuncSetAttribute does, which forgets the thread's last error even if all is well.
cudaError_t AllowSharedBytes(const void* kernel, int bytes);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_DRIVER_H_
