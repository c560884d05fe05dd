// Flags between devices: the only place where they are written and awaited.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_SIGNALS_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_SIGNALS_CUH_

#include <cstdint>

#include "lockstep/collective/cuda/kernels.h"

namespace lockstep::internal::cuda {

/// Of a warp.
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

/// Release at system scope: whoever acquires the value sees what this thread, and the threads it
/// has met at __syncthreads(), wrote before. Pairs with AcquireFlag.
__device__ __forceinline__ void ReleaseFlag(std::uint64_t* flag, std::uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(value) : "memory");
}
/// Pairs with ReleaseFlag.
__device__ __forceinline__ std::uint64_t AcquireFlag(const std::uint64_t* flag) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
  return value;
}

// Order nothing; the host's side is a relaxed atomic of the same size.
__device__ __forceinline__ std::uint32_t LoadWord(const std::uint32_t* word) {
  std::uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
__device__ __forceinline__ void StoreWord(std::uint32_t* word, std::uint32_t value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

__device__ __forceinline__ std::uint64_t NowNs() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__device__ __forceinline__ bool IsPeer(const Peers& peers, int rank) {
  return rank < peers.world_size && rank != peers.rank;
}

/// One thread's patience in one wait.
class Patience {
 public:
  __device__ explicit Patience(const Watch& watch) : watch_(watch) {}

  /// Called after a poll that found nothing: false when it is time to leave.
  __device__ bool Lasts(int awaited_rank) {
    if (++polls_ % kPollsPerLook != 0) return true;
    if (LoadWord(&watch_.lookout->aborted) != 0) return false;
    const std::uint64_t now = NowNs();
    if (start_ns_ == 0) start_ns_ = now;
    if (now - start_ns_ >= watch_.timeout_ns) {
      Report(awaited_rank);
      return false;
    }
    return LookAtHost(now);
  }

 private:
  // All threads of a kernel write the same but for the rank. The release pairs with the acquire in
  // DeviceGroup::Health; behind the fence nobody finds the abort and no report.
  __device__ void Report(int awaited_rank) {
    watch_.report->call = watch_.call;
    ReleaseFlag(&watch_.report->awaited, static_cast<std::uint64_t>(awaited_rank) + 1);
    __threadfence_system();
    StoreWord(watch_.abort, 1);
  }

  // About 50 us.
  static constexpr std::uint32_t kPollsPerLook = 64;
  static constexpr std::uint64_t kNsPerHostLook = 500'000;

  // Whoever finds that nobody has looked at the host's word for a while does it for all threads of
  // the device. If all did, a thousand reads across PCIe would take most of a millisecond, in which
  // the peers lose patience too.
  __device__ bool LookAtHost(std::uint64_t now) {
    unsigned long long* const last = &watch_.lookout->last_look_ns;
    const unsigned long long seen = *static_cast<volatile unsigned long long*>(last);
    if (now - seen < kNsPerHostLook || atomicCAS(last, seen, now) != seen) return true;
    if (LoadWord(watch_.abort) == 0) return true;
    StoreWord(&watch_.lookout->aborted, 1);
    return false;
  }

  const Watch& watch_;
  std::uint32_t polls_ = 0;
  std::uint64_t start_ns_ = 0;
};

/// Waits until *flag is at least `value`; false when it is time to leave.
__device__ __forceinline__ bool AwaitFlag(const std::uint64_t* flag, std::uint64_t value,
                                          const Watch& watch, int awaited_rank) {
  Patience patience(watch);
  while (AcquireFlag(flag) < value) {
    if (!patience.Lasts(awaited_rank)) return false;
  }
  return true;
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_SIGNALS_CUH_
