#include "lockstep/runtime/status.h"

#include <cstdio>
#include <cstdlib>
#include <new>

namespace lockstep::internal {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

void CallWithinMemory(absl::FunctionRef<void()> call) {
  try {
    call();
  } catch (const std::bad_alloc&) {
    // The caller keeps the status that says so.
  }
}

}  // namespace lockstep::internal
