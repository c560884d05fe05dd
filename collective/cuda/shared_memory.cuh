// What the threads of a block share: barriers, counts, slots that are loaded past the registers.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_SHARED_MEMORY_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_SHARED_MEMORY_CUH_

#include <cstdint>

namespace lockstep::internal::cuda {

/// As PTX counts it.
__device__ __forceinline__ unsigned AddressOf(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
/// A barrier at which `num_threads` threads arrive, again and again (PTX's mbarrier).
__device__ __forceinline__ void InitBarrier(std::uint64_t* barrier, int num_threads) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(AddressOf(barrier)), "r"(num_threads)
               : "memory");
}
/// Releases what this thread wrote to whoever finds the barrier complete.
__device__ __forceinline__ void Arrive(std::uint64_t* barrier) {
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(AddressOf(barrier))
      : "memory");
}
/// Whether all have arrived for the time of this parity.
__device__ __forceinline__ bool IsComplete(const std::uint64_t* barrier, unsigned parity) {
  unsigned complete;
  asm volatile(
      "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(complete)
      : "r"(AddressOf(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
}

/// Pairs with LoadCount: whoever sees the count sees what this thread has seen.
__device__ __forceinline__ void StoreCount(std::int64_t* count, std::int64_t value) {
  asm volatile("st.release.cta.shared.s64 [%0], %1;" ::"r"(AddressOf(count)), "l"(value)
               : "memory");
}
__device__ __forceinline__ std::int64_t LoadCount(const std::int64_t* count) {
  std::int64_t value;
  asm volatile("ld.acquire.cta.shared.s64 %0, [%1];"
               : "=l"(value)
               : "r"(AddressOf(count))
               : "memory");
  return value;
}

/// Starts to load the first `bytes` of a slot into shared memory; the others become zero. Past the
/// first-level cache, which does not see what peers write.
__device__ __forceinline__ void StartLoad(uint4* to, const uint4* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(AddressOf(to)), "l"(from),
               "r"(bytes)
               : "memory");
}
/// The loads that this thread has started since it called this last are one more step.
__device__ __forceinline__ void EndStep() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until this thread's loads have come, but for the last kSteps steps'.
template <int kSteps>
__device__ __forceinline__ void AwaitLoads() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kSteps) : "memory");
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_SHARED_MEMORY_CUH_
