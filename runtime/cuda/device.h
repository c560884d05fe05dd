// The CUDA side of runtime/device.h. A build without CUDA has the same functions (absent.cc): they
// find no device, so that nothing else of CUDA is ever asked for.
#ifndef LOCKSTEP_RUNTIME_CUDA_DEVICE_H_
#define LOCKSTEP_RUNTIME_CUDA_DEVICE_H_

#include <vector>

#include "lockstep/runtime/device.h"

namespace lockstep::internal::cuda {

/// Devices that can be used; 0 without a driver.
int DeviceCount();
/// 0 of a device that there is not.
int NumMultiprocessors(Device device);
/// OK if there is such a device. kUnavailable: there is not, and how many there are.
absl::Status CheckDevice(Device device);
/// Makes `device` the calling thread's current one, so that no call needs to switch.
void UseDevice(Device device);
/// The CPUs that are nearest to the device, in rising order; none where the system does not say.
std::vector<int> CpusNear(Device device);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_DEVICE_H_
