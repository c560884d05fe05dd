// What the math of one rank keeps on its GPU.
#ifndef LOCKSTEP_RUNTIME_CUDA_WORKER_STATE_H_
#define LOCKSTEP_RUNTIME_CUDA_WORKER_STATE_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "lockstep/runtime/worker.h"

namespace lockstep::internal {

namespace cuda {
/// cuBLASLt's handle and workspace, and the algorithm chosen for each shape (matmul.cc).
class MatMulPlans;
absl::StatusOr<std::shared_ptr<MatMulPlans>> MakeMatMulPlans(Device device);
}  // namespace cuda

struct WorkerState {
  Device device;
  std::shared_ptr<cuda::MatMulPlans> matmul_plans;
};

namespace cuda {

inline cudaStream_t NativeStream(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}
inline cudaStream_t StreamOf(const Worker& worker) { return NativeStream(worker.stream()); }

// Each loads its file's kernels on the current device, so that no launch has to.
cudaError_t LoadElementwiseKernels();
cudaError_t LoadRowwiseKernels();
cudaError_t LoadUpdateKernels();

}  // namespace cuda
}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_CUDA_WORKER_STATE_H_
