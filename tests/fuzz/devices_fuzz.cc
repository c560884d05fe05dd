// The grammar of --devices, for a machine with as many GPUs as the first byte says.
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_join.h"
#include "lockstep/runtime/device.h"

using lockstep::Device;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const int num_gpus = data[0] % 9;
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto devices = lockstep::internal::ParseDevices(text, num_gpus);
  if (!devices.ok()) {
    LOCKSTEP_CHECK(absl::IsInvalidArgument(devices.status()));
    return 0;
  }
  LOCKSTEP_CHECK(!devices->empty());
  for (const Device& device : *devices) {
    LOCKSTEP_CHECK(device.index() >= 0);
    LOCKSTEP_CHECK(device.is_cpu() ? device.index() == 0 : device.index() < num_gpus);
  }
  // Their names parse as the same devices.
  const std::string names = absl::StrJoin(
      *devices, ",", [](std::string* out, const Device& device) { *out += device.ToString(); });
  const auto again = lockstep::internal::ParseDevices(names, num_gpus);
  LOCKSTEP_CHECK(again.ok() && *again == *devices);
  return 0;
}
