#include "lockstep/tests/harness/stacks.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lockstep::testing {

std::string StacksOf(pid_t process) {
  // A debugger that this process starts may look at it.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  // Into a file: a pipe could be full while its reader stands still.
  const int file = memfd_create("lockstep_stacks", MFD_CLOEXEC);
  if (file < 0) return "(no stacks: no temporary file)";
  const std::string command = absl::StrCat(
      "timeout -k 5 60 gdb -p ", process,
      " -batch -ex 'set pagination off' -ex 'thread apply all bt 24' </dev/null >/proc/", getpid(),
      "/fd/", file, " 2>/dev/null");
  const int ended = std::system(command.c_str());
  std::string stacks;
  if (FILE* lines = fdopen(file, "r"); lines != nullptr) {
    char line[1024];
    while (std::fgets(line, sizeof(line), lines) != nullptr) {
      if (line[0] == '#' || absl::StartsWith(line, "Thread")) stacks += line;
    }
    std::fclose(lines);
  }
  if (!stacks.empty()) return stacks;
  return absl::StrCat("(no stacks: gdb is not installed or may not attach; it ended with ", ended,
                      ")");
}

}  // namespace lockstep::testing
