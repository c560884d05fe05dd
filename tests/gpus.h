// The GPUs that tests run on. A test case that uses any has the tag [gpu]; [multi_gpu] too if it
// needs two, and [cuda_error] if it provokes errors of CUDA, which compute-sanitizer would report.
#ifndef LOCKSTEP_TESTS_GPUS_H_
#define LOCKSTEP_TESTS_GPUS_H_

#include <vector>

#include "lockstep/runtime/device.h"

namespace lockstep::testing {

/// Fails a test case without the tag [gpu], also on a machine without a GPU: tools/gpu_test, which
/// runs what has it, would leave the case out. For the main thread.
void RequireGpuTag();

/// All GPUs of this machine, if any. Requires the tag.
std::vector<Device> Gpus();

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_GPUS_H_
