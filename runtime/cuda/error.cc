#include "lockstep/runtime/cuda/error.h"

namespace lockstep::internal::cuda {

namespace {

// Whether CUDA leaves the device unusable for this process after `error`.
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

}  // namespace

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
