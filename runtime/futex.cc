#include "lockstep/runtime/futex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <ctime>

namespace lockstep::internal {
namespace {

// The kernel compares 32 bits: the word's low half.
std::uint32_t* LowHalf(const std::atomic<std::uint64_t>& word) {
  static_assert(sizeof(word) == sizeof(std::uint64_t) &&
                std::atomic<std::uint64_t>::is_always_lock_free);
  auto* halves = reinterpret_cast<std::uint32_t*>(const_cast<std::atomic<std::uint64_t>*>(&word));
  return halves + (std::endian::native == std::endian::big ? 1 : 0);
}

timespec ToTimespec(Clock::time_point when) {
  const auto since =
      std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count();
  return {.tv_sec = static_cast<time_t>(since / 1'000'000'000),
          .tv_nsec = static_cast<long>(since % 1'000'000'000)};
}

}  // namespace

void NativePlatform::Yield() { sched_yield(); }

void NativePlatform::Park(const std::atomic<std::uint64_t>& word, std::uint32_t expected,
                          Clock::time_point deadline) {
  // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, where FUTEX_WAIT takes a relative
  // one that a signal would start again. EINTR, EAGAIN and ETIMEDOUT all mean the same here: the
  // caller looks again.
  const timespec until = ToTimespec(deadline);
  syscall(SYS_futex, LowHalf(word), FUTEX_WAIT_BITSET_PRIVATE, expected, &until, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

void NativePlatform::UnparkAll(const std::atomic<std::uint64_t>& word) {
  syscall(SYS_futex, LowHalf(word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

SpinPolicy SpinPolicy::For(int num_threads) {
  if (num_threads > NumUsableCores())
    return {.budget = std::chrono::microseconds(50), .yields = true};
  return {.close_polls = 16, .budget = std::chrono::microseconds(50)};
}

int NumUsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  // Fails on machines with more cores than the set holds, which have enough for anyone here.
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return CPU_SETSIZE;
  return std::max(1, CPU_COUNT(&cores));
}

}  // namespace lockstep::internal
