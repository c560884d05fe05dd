#include "lockstep/runtime/futex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <climits>

#include "absl/time/time.h"

namespace lockstep::internal {
namespace {

// The kernel compares 32 bits: the word's low half. The word itself may be gone.
std::uint32_t* LowHalf(const AnnotatedAtomic<std::uint64_t>& word) {
  static_assert(sizeof(word) == sizeof(std::uint64_t) &&
                std::atomic<std::uint64_t>::is_always_lock_free);
  auto* const address = const_cast<AnnotatedAtomic<std::uint64_t>*>(&word);
  return reinterpret_cast<std::uint32_t*>(address) + (std::endian::native == std::endian::big);
}

}  // namespace

void NativePlatform::Yield() { sched_yield(); }

void NativePlatform::Park(const Atomic<std::uint64_t>& word, std::uint32_t expected,
                          Clock::time_point deadline) {
  // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, where FUTEX_WAIT takes a relative
  // one that a signal would start again. EINTR, EAGAIN and ETIMEDOUT all mean the same here: the
  // caller looks again.
  const timespec until = absl::ToTimespec(absl::FromChrono(deadline.time_since_epoch()));
  syscall(SYS_futex, LowHalf(word), FUTEX_WAIT_BITSET_PRIVATE, expected, &until, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

void NativePlatform::UnparkAll(const Atomic<std::uint64_t>& word) {
  syscall(SYS_futex, LowHalf(word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace lockstep::internal
