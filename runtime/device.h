// Where a rank's memory is and its work runs, and the grammar in which people name devices on a
// command line.
#ifndef LOCKSTEP_RUNTIME_DEVICE_H_
#define LOCKSTEP_RUNTIME_DEVICE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "lockstep/runtime/status.h"

namespace lockstep {

/// The host's CPU, or one CUDA device by its index. A value: copies name the same device.
class Device {
 public:
  enum class Type : unsigned char { kCpu, kCuda };

  static constexpr Device Cpu() { return Device(Type::kCpu, 0); }
  static constexpr Device Cuda(int index) { return Device(Type::kCuda, index); }

  constexpr Type type() const { return type_; }
  /// The CUDA ordinal; 0 for the CPU.
  constexpr int index() const { return index_; }
  constexpr bool is_cpu() const { return type_ == Type::kCpu; }

  /// "cpu" or "cuda:3".
  std::string ToString() const;

  friend constexpr bool operator==(const Device&, const Device&) = default;

 private:
  constexpr Device(Type type, int index) : type_(type), index_(index) {}

  Type type_;
  int index_;
};

/// How many CUDA devices this build and machine can use: 0 without CUDA.
int CudaDeviceCount();
/// Of a GPU; 0 for the CPU.
int NumMultiprocessors(Device device);

/// Reads a list of devices: "cpu", "cuda:1", "cuda:0-3", "cuda" (all GPUs), "auto" (all GPUs, else
/// the CPU), and any of them joined by commas, as in "cuda:0,cuda:2-3". kInvalidArgument: not of
/// that form, or a device that this machine lacks; the message lists those it has.
absl::StatusOr<std::vector<Device>> ParseDevices(absl::string_view text);

namespace internal {
/// ParseDevices for a machine with that many CUDA devices.
absl::StatusOr<std::vector<Device>> ParseDevices(absl::string_view text, int num_cuda_devices);

/// The device of each of `world_size` ranks, dealt in order:
/// devices[rank * num_devices / world_size].
std::vector<Device> DealDevices(const std::vector<Device>& devices, int world_size);
}  // namespace internal

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_DEVICE_H_
