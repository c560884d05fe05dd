#include "lockstep/runtime/cuda/worker.h"

#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream& stream) {
  const Device device = stream.device();
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadElementwiseKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadColumnSumsKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadCrossEntropyKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadRandomKernels());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device, LoadUpdateKernels());
  LOCKSTEP_ASSIGN_OR_RETURN(auto plans, MakeMatMulPlans(device));
  return std::make_shared<WorkerState>(WorkerState{device, std::move(plans)});
}

}  // namespace lockstep::internal::cuda
