#include "lockstep/runtime/cuda/device.h"

#include <cuda_runtime_api.h>

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

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

int NumMultiprocessors(Device device) {
  int count = 0;
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device.index()) !=
      cudaSuccess) {
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

}  // namespace lockstep::internal::cuda
