// The CUDA side of runtime/worker.h: what the math of one rank keeps on its GPU.
#ifndef LOCKSTEP_RUNTIME_CUDA_WORKER_H_
#define LOCKSTEP_RUNTIME_CUDA_WORKER_H_

#include <memory>

#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::internal {

namespace cuda {
/// cuBLASLt's handle and workspace, and the algorithm chosen for each shape (matmul.cc).
class MatMulPlans;
/// Null where there is no cuBLASLt: then products fail, and say why, and all else goes on.
absl::StatusOr<std::shared_ptr<MatMulPlans>> MakeMatMulPlans(Device device);
}  // namespace cuda

struct WorkerState {
  Device device;
  std::shared_ptr<cuda::MatMulPlans> matmul_plans;
};

namespace cuda {

/// All kernels of the runtime are loaded on the device when this returns.
absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream& stream);
inline CUstream_st* StreamOf(const Worker& worker) { return NativeStream(worker.stream()); }

}  // namespace cuda
}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_CUDA_WORKER_H_
