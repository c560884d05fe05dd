#include "lockstep/tools/lockstep/info.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/pinning.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"
#include "lockstep/tools/lockstep/report.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {
namespace {

// "BLIS, Highway, hwloc, CUDA 13.0; without NCCL".
std::string BuiltWith() {
  std::vector<std::string> with = {"BLIS", "Highway"};
  std::vector<std::string> without;
  const auto add = [&](bool built_in, const char* name, const std::string& version = "") {
    (built_in ? with : without).push_back(built_in ? name + version : name);
  };
  const std::string cuda = CudaVersion();
  const std::string nccl = NcclVersion();
  add(internal::CanPin(), "hwloc");
  add(!cuda.empty(), "CUDA", " " + cuda);
  add(!nccl.empty(), "NCCL", " " + nccl + " (to compare with)");
  return absl::StrCat(absl::StrJoin(with, ", "), without.empty() ? "" : "; without ",
                      absl::StrJoin(without, ", "));
}

// "cpu, 2 CUDA devices: cuda:0 NVIDIA H200, cuda:1 NVIDIA H200; the driver knows CUDA 13.0".
std::string DevicesHere() {
  const int count = CudaDeviceCount();
  std::string text = absl::StrCat("cpu, ", count, " CUDA device", count == 1 ? "" : "s");
  for (int index = 0; index < count; ++index) {
    const Device gpu = Device::Cuda(index);
    absl::StrAppend(&text, index == 0 ? ": " : ", ", gpu.ToString(), " ", GpuName(gpu));
  }
  if (count > 0) absl::StrAppend(&text, "; the driver knows CUDA ", CudaDriverVersion());
  return text;
}

}  // namespace

const char* Version() { return LOCKSTEP_VERSION; }

absl::Status Info(const Executor::Options& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
  absl::PrintF("lockstep   %s\n", Version());
  absl::PrintF("built with %s\n", BuiltWith());
  absl::PrintF("machine    %s\n", MachineLine());
  absl::PrintF("devices    %s\n", DevicesHere());
  absl::PrintF("ranks      %d, on %s\n", executor->world_size(),
               DeviceList(executor->rank_devices()));
  absl::PrintF("transport  %s, because %s\n", barrier->transport(), barrier->transport_reason());
  absl::PrintF("group      %.1f MiB on each rank's device, %.1f MiB pinned for it\n",
               static_cast<double>(barrier->device_bytes(0)) / (1 << 20),
               static_cast<double>(barrier->pinned_bytes(0)) / (1 << 20));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<PeerLink> links,
                            MeasurePeerLinks(executor->rank_devices()));
  const char* label = "peers";
  for (const PeerLink& link : links)
    absl::PrintF("%-10s %s\n", std::exchange(label, ""), ToString(link));
  return absl::OkStatus();
}

}  // namespace lockstep::tools
