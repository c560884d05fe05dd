#include "lockstep/runtime/device.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lockstep/runtime/cuda/device.h"

namespace lockstep {
namespace {

absl::Status NotADevice(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "devices: \"", text,
      "\" is not cpu, cuda, cuda:N, cuda:N-M or auto, nor a list of them with commas"));
}

// Digits alone: no sign, no space, and nothing that does not fit.
bool ParseIndex(absl::string_view text, int& index) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, &index);
}

absl::Status AppendCuda(int first, int last, int num_cuda_devices, absl::string_view text,
                        std::vector<Device>& devices) {
  if (last >= num_cuda_devices) {
    const std::string there = num_cuda_devices == 0 ? "no CUDA device; use cpu"
                              : num_cuda_devices == 1
                                  ? "cuda:0 alone"
                                  : absl::StrCat("cuda:0 to cuda:", num_cuda_devices - 1);
    return absl::InvalidArgumentError(
        absl::StrCat("devices: \"", text, "\" asked for, but this machine has ", there));
  }
  for (int index = first; index <= last; ++index) devices.push_back(Device::Cuda(index));
  return absl::OkStatus();
}

absl::Status AppendPart(absl::string_view part, int num_cuda_devices,
                        std::vector<Device>& devices) {
  if (part == "cpu" || (part == "auto" && num_cuda_devices == 0)) {
    devices.push_back(Device::Cpu());
    return absl::OkStatus();
  }
  if (part == "cuda" || part == "auto") {
    return AppendCuda(0, std::max(num_cuda_devices, 1) - 1, num_cuda_devices, part, devices);
  }
  absl::string_view range = part;
  if (!absl::ConsumePrefix(&range, "cuda:")) return NotADevice(part);
  const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
  int first = 0;
  if (ends.size() > 2 || !ParseIndex(ends.front(), first)) return NotADevice(part);
  int last = first;
  if (ends.size() == 2 && !ParseIndex(ends.back(), last)) return NotADevice(part);
  if (last < first) return NotADevice(part);
  return AppendCuda(first, last, num_cuda_devices, part, devices);
}

}  // namespace

std::string Device::ToString() const { return is_cpu() ? "cpu" : absl::StrCat("cuda:", index_); }

int CudaDeviceCount() { return internal::cuda::DeviceCount(); }
int NumMultiprocessors(Device device) {
  return device.is_cpu() ? 0 : internal::cuda::NumMultiprocessors(device);
}

absl::StatusOr<std::vector<Device>> ParseDevices(absl::string_view text) {
  return internal::ParseDevices(text, CudaDeviceCount());
}

namespace internal {

absl::StatusOr<std::vector<Device>> ParseDevices(absl::string_view text, int num_cuda_devices) {
  std::vector<Device> devices;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    LOCKSTEP_RETURN_IF_ERROR(AppendPart(part, num_cuda_devices, devices));
  }
  for (auto device = devices.begin(); device != devices.end(); ++device) {
    if (std::find(devices.begin(), device, *device) == device) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("devices: \"", text, "\" names ", device->ToString(),
                     " twice; for several ranks on one device give --ranks"));
  }
  return devices;
}

std::vector<Device> DealDevices(const std::vector<Device>& devices, int world_size) {
  std::vector<Device> dealt;
  const auto ranks = static_cast<std::size_t>(world_size);
  for (std::size_t rank = 0; rank < ranks; ++rank)
    dealt.push_back(devices[rank * devices.size() / ranks]);
  return dealt;
}

}  // namespace internal
}  // namespace lockstep
