#include <cuda_runtime_api.h>

#include "lockstep/runtime/cuda/cuda.h"
#include "lockstep/runtime/cuda/error.h"

namespace lockstep::internal::cuda {

int DeviceCount() {
  int count = 0;
  // Without a driver there is no device, and no error to keep.
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

absl::Status CheckDevice(Device device) {
  const int count = DeviceCount();
  if (device.index() >= 0 && device.index() < count) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(device.ToString(), " asked for, but this machine has ", count, " CUDA devices"));
}

void UseDevice(Device device) { cudaSetDevice(device.index()); }

bool IsSticky(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
      return true;
    default:
      return false;
  }
}

absl::Status Error(cudaError_t error, absl::string_view call, Device device) {
  // A call's own errors stay behind as the thread's last error otherwise, for somebody else to
  // find.
  cudaGetLastError();
  std::string text = absl::StrCat(call.substr(0, call.find('(')), " on ", device.ToString(), ": ",
                                  cudaGetErrorName(error), " (", cudaGetErrorString(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  if (!IsSticky(error)) return absl::UnavailableError(text);
  return absl::InternalError(
      absl::StrCat(text, "; this process cannot use the device any more, start another"));
}

}  // namespace lockstep::internal::cuda
