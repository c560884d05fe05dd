// The stacks of a process that hangs.
#ifndef LOCKSTEP_TESTS_HARNESS_STACKS_H_
#define LOCKSTEP_TESTS_HARNESS_STACKS_H_

#include <sys/types.h>

#include <string>

namespace lockstep::testing {

/// The stacks of all threads of `process`, which may be this one, from gdb; or a line that says why
/// there are none. The process stands still meanwhile, for a minute at most.
std::string StacksOf(pid_t process);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_STACKS_H_
