#include "lockstep/runtime/cuda/worker.h"

#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {

absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream& stream) {
  const Device device = stream.device();
  const DeviceGuard guard(device);
  KernelLoader loader;
  for (const auto load : {LoadElementwiseKernels, LoadColumnSumsKernels, LoadCrossEntropyKernels,
                          LoadRandomKernels, LoadUpdateKernels}) {
    load(loader);
  }
  LOCKSTEP_RETURN_IF_ERROR(ToStatus(loader.error(), "loading kernels", device));
  LOCKSTEP_ASSIGN_OR_RETURN(auto plans, MakeMatMulPlans(device));
  return std::make_shared<WorkerState>(WorkerState{device, std::move(plans)});
}

}  // namespace lockstep::internal::cuda
