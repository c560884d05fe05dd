// Tests that may hang or crash, each in a process of its own with a hard time limit.
#ifndef LOCKSTEP_TESTS_HARNESS_CHILD_PROCESS_H_
#define LOCKSTEP_TESTS_HARNESS_CHILD_PROCESS_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "lockstep/runtime/status.h"

namespace lockstep::testing {

/// Runs `body` in a forked child and returns what it returned; kInternal with its text if it threw.
/// A child that is not done within `limit` (positive and finite) is killed, and the result is
/// kDeadlineExceeded with the stacks of all its threads (from gdb, where that is installed); one
/// that dies otherwise gives kInternal with its signal or exit code, so that a sanitizer's report
/// fails the test too. The calling process must have a single thread, as a test has before it makes
/// any, and must not ignore SIGCHLD. What the body writes to memory stays in the child. For any
/// test framework:
///
///   absl::Status status = lockstep::testing::RunInChild(
///       absl::Seconds(10), [] { return TwoRanksWhereOneNeverArrives(); });
///   REQUIRE(status.ok());
absl::Status RunInChild(absl::Duration limit, absl::FunctionRef<absl::Status()> body);

/// OK if `condition`, else kInternal with `text`. For bodies, which cannot use assertions.
absl::Status Expect(bool condition, absl::string_view text);
/// OK if `status` has that code and its text contains `part`, else kInternal with what it is.
absl::Status ExpectStatus(const absl::Status& status, absl::StatusCode code,
                          absl::string_view part);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_CHILD_PROCESS_H_
