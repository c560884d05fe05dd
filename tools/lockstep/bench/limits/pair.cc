#include "lockstep/tools/lockstep/bench/limits/pair.h"

#include "lockstep/collective/cuda/transports.h"
#include "lockstep/tools/lockstep/bench/limits/kernels.h"
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

constexpr std::uint32_t kHops = 1024;
// An odd number of lines, so that the hops do not all meet in one part of the cache.
constexpr std::uint32_t kHopWords = (64 << 10) / sizeof(std::uint32_t) - 32;
constexpr std::int64_t kChainBytes = std::int64_t{kHops} * kHopWords * sizeof(std::uint32_t);

// Queues a copy from devices[from] to the other on each of its turns.
absl::Status AddCopy(const LimitPair& pair, int from, LimitLanes& lanes) {
  return lanes.Add(pair.devices[from], [&pair, from](cudaStream_t stream) {
    return cudaMemcpyPeerAsync(pair.out[1 - from].get(), pair.devices[1 - from].index(),
                               pair.in[from].get(), pair.devices[from].index(),
                               static_cast<std::size_t>(pair.bytes), stream);
  });
}

}  // namespace

absl::StatusOr<LimitPair> MakePair(Device a, Device b, std::int64_t bytes) {
  LimitPair pair{.devices = {a, b}, .in = {}, .out = {}, .bytes = bytes};
  for (int i = 0; i < 2; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(pair.in[i], DeviceMemory(pair.devices[i], bytes));
    LOCKSTEP_ASSIGN_OR_RETURN(pair.out[i], DeviceMemory(pair.devices[i], bytes));
  }
  return pair;
}

absl::StatusOr<Times> KernelCopies(const LimitPair& pair, bool writes) {
  Times best;
  int processors = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      pair.devices[0],
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, pair.devices[0].index()));
  for (const int blocks : {processors / 2, processors, 2 * processors, 4 * processors}) {
    LimitLanes lanes;
    for (int i = 0; i < 2; ++i) {
      const void* const in = pair.in[writes ? i : 1 - i].get();
      void* const out = pair.out[writes ? 1 - i : i].get();
      LOCKSTEP_RETURN_IF_ERROR(
          lanes.Add(pair.devices[i], [in, out, blocks, bytes = pair.bytes](cudaStream_t stream) {
            return LaunchCopy(in, out, bytes, blocks, stream);
          }));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const Times times, lanes.Measure());
    if (best.p50 == 0 || times.p50 < best.p50) best = times;
  }
  return best;
}

absl::StatusOr<Times> CopyEngines(const LimitPair& pair) {
  LimitLanes lanes;
  for (int i = 0; i < 2; ++i) LOCKSTEP_RETURN_IF_ERROR(AddCopy(pair, i, lanes));
  return lanes.Measure();
}

namespace {

// By a copy engine from devices[from] to the other, and nothing the other way.
absl::StatusOr<Times> OneWayCopy(const LimitPair& pair, int from) {
  LimitLanes lanes;
  LOCKSTEP_RETURN_IF_ERROR(AddCopy(pair, from, lanes));
  return lanes.Measure(kFewRounds);
}

// Nanoseconds of a load by devices[from] from the other's memory, which finds its line in that
// GPU's second-level cache. For GPUs that reach each other. Overwrites the other's `in`.
absl::StatusOr<double> LoadLatency(const LimitPair& pair, int from) {
  LOCKSTEP_CHECK(pair.bytes >= kChainBytes);
  const Device far = pair.devices[1 - from];
  auto* const chain = static_cast<std::uint32_t*>(pair.in[1 - from].get());
  auto* const end = static_cast<std::uint32_t*>(pair.out[from].get());
  {
    const DeviceGuard guard(far);
    LOCKSTEP_RETURN_IF_CUDA_ERROR(far, LaunchMakeChain(chain, kHops, kHopWords, nullptr));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(far, cudaDeviceSynchronize());
  }
  LimitLanes lanes;
  LOCKSTEP_RETURN_IF_ERROR(lanes.Add(pair.devices[from], [chain, end](cudaStream_t stream) {
    return LaunchFollowChain(chain, kHops, end, stream);
  }));
  LOCKSTEP_ASSIGN_OR_RETURN(const Times times, lanes.Measure(kFewRounds));
  std::uint32_t came_out = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      pair.devices[from], cudaMemcpy(&came_out, end, sizeof(came_out), cudaMemcpyDeviceToHost));
  if (came_out == 0) return times.p50 * 1e3 / kHops;
  return absl::DataLossError(absl::StrCat("load latency: a chain of loads from ", far.ToString(),
                                          " came out at ", came_out, " and not where it began"));
}

}  // namespace

absl::StatusOr<std::vector<PeerLink>> MeasureLinksOf(Device a, Device b) {
  constexpr std::int64_t kBytes = 64 << 20;
  // As a group of the two does when it chooses its transport.
  const absl::Status proof = internal::cuda::ProvePeerAccess({a, b}, /*spoil=*/false);
  // Other errors are those of the devices, not of the way between them.
  if (!proof.ok() && !absl::IsUnavailable(proof)) return proof;
  LOCKSTEP_ASSIGN_OR_RETURN(const LimitPair pair, MakePair(a, b, kBytes));
  std::vector<PeerLink> links;
  for (int from = 0; from < 2; ++from) {
    PeerLink& link =
        links.emplace_back(PeerLink{pair.devices[from], pair.devices[1 - from], proof});
    LOCKSTEP_ASSIGN_OR_RETURN(const Times copy, OneWayCopy(pair, from));
    link.copy_gb_per_s = static_cast<double>(kBytes) / copy.p50 / 1e3;
    if (!proof.ok()) continue;
    LOCKSTEP_ASSIGN_OR_RETURN(link.load_ns, LoadLatency(pair, from));
  }
  return links;
}

}  // namespace lockstep::tools
