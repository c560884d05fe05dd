# The standard library's and Abseil's headers take two seconds to parse, which is most of what a file of lockstep takes. A
# file includes what it needs all the same: tools/fuzz builds without this.
if(LOCKSTEP_PRECOMPILE)
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cc" CONTENT "")
  add_library(lockstep_precompiled OBJECT "${PROJECT_BINARY_DIR}/precompiled.cc")
  target_link_libraries(lockstep_precompiled PRIVATE absl::status absl::statusor absl::strings absl::span absl::inlined_vector
    absl::function_ref absl::time)
  lockstep_target_defaults(lockstep_precompiled)
  target_precompile_headers(lockstep_precompiled PRIVATE
    <algorithm> <array> <atomic> <chrono> <cmath> <functional> <memory> <mutex> <optional> <string> <thread> <utility> <vector>
    <absl/container/inlined_vector.h> <absl/functional/function_ref.h> <absl/status/status.h> <absl/status/statusor.h>
    <absl/strings/match.h> <absl/strings/str_cat.h> <absl/strings/str_join.h> <absl/strings/string_view.h>
    <absl/time/clock.h> <absl/time/time.h> <absl/types/span.h>)
endif()

# lockstep_precompile(target): a library without options of its own.
function(lockstep_precompile target)
  if(LOCKSTEP_PRECOMPILE)
    target_precompile_headers(${target} REUSE_FROM lockstep_precompiled)
  endif()
endfunction()
