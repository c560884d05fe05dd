// To be preloaded: at every other look the wall clock is an hour back.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) noexcept {
  static std::atomic<int> looks{0};
  const long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && clock == CLOCK_REALTIME && looks++ % 2 == 1) time->tv_sec -= 3600;
  return static_cast<int>(result);
}
