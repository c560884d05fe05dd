#include "lockstep/tools/lockstep/info.h"

#include <cstdio>

#include "absl/strings/str_join.h"
#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/pinning.h"
#include "lockstep/tools/lockstep/bench.h"

namespace lockstep::tools {

absl::Status Info(const Executor::Options& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
  const std::string devices = absl::StrJoin(
      executor->rank_devices(), ", ",
      [](std::string* text, const Device& device) { text->append(device.ToString()); });
  std::printf("lockstep   %s\n", LOCKSTEP_VERSION);
  std::printf("built with BLIS, Highway%s; without CUDA, NCCL\n",
              internal::CanPin() ? ", hwloc" : "");
  std::printf("machine    %s\n", MachineLine().c_str());
  std::printf("devices    cpu, %d CUDA devices\n", CudaDeviceCount());
  std::printf("ranks      %d, on %s\n", executor->world_size(), devices.c_str());
  std::printf("transport  %s, because %s\n", std::string(barrier->transport()).c_str(),
              std::string(barrier->transport_reason()).c_str());
  return absl::OkStatus();
}

}  // namespace lockstep::tools
