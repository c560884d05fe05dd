#include "lockstep/runtime/cuda/worker_state.h"

#include "lockstep/runtime/cuda/cuda.h"
#include "lockstep/runtime/cuda/error.h"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream& stream) {
  const Device device = stream.device();
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadElementwiseKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadRowwiseKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadUpdateKernels());
  LOCKSTEP_ASSIGN_OR_RETURN(auto plans, MakeMatMulPlans(device));
  return std::make_shared<WorkerState>(WorkerState{device, std::move(plans)});
}

}  // namespace lockstep::internal::cuda
