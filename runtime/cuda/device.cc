#include <cuda_runtime_api.h>

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
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

std::vector<int> CpusNear(Device device) {
  char bus_id[32];
  if (cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), device.index()) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  // "0-15,32-47".
  std::ifstream file(
      absl::StrCat("/sys/bus/pci/devices/", absl::AsciiStrToLower(bus_id), "/local_cpulist"));
  std::string list;
  std::getline(file, list);
  std::vector<int> cpus;
  for (const absl::string_view range : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
    int first = 0;
    int last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last)) return {};
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

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
