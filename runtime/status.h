// The one bridge to Abseil's status: what every fallible call returns, the two macros that pass a
// failure on, and the check that stops the process on a bug of lockstep's own.
//
//   absl::Status Double(Worker& worker) {
//     LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({4}, DType::kFloat32));
//     LOCKSTEP_RETURN_IF_ERROR(Scale(worker, 2.0, x));
//     return absl::OkStatus();
//   }
//
// Status codes that lockstep returns, and what a caller can do:
// - kInvalidArgument: this rank asked for something that cannot be; mend the call.
// - kFailedPrecondition: the ranks asked for different things in one round, or the object is not in
//   a state for the call.
// - kDeadlineExceeded: a rank did not arrive in time; CollectiveBarrier::Reset(), then go on.
// - kAborted: another rank failed, or the group was poisoned before; the message holds the first
//   cause.
// - kCancelled: stale; the call belongs to a round from before a Reset().
// - kResourceExhausted: memory; without a text where there was none for it.
// - kUnavailable: the device, feature or child process cannot serve the call.
// - kInternal: a task threw, or a device failed for good.
#ifndef LOCKSTEP_RUNTIME_STATUS_H_
#define LOCKSTEP_RUNTIME_STATUS_H_

#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace lockstep::internal {

// Prints `file:line: check failed: condition` on stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

// kResourceExhausted without a text, for which there may be no memory either.
inline absl::Status OutOfMemory() { return absl::Status(absl::StatusCode::kResourceExhausted, ""); }
inline bool IsOutOfMemory(const absl::Status& status) {
  return !status.ok() && absl::IsResourceExhausted(status) && status.message().empty();
}

// Returns what `call` returns, a Status or a StatusOr; OutOfMemory() where it throws that.
template <typename Call>
auto OutOfMemoryAsStatus(Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

}  // namespace lockstep::internal

/// Stops the process when `condition` is false. For lockstep's own bugs only, never for what a
/// caller or the world does.
#define LOCKSTEP_CHECK(condition)     \
  ((condition) ? static_cast<void>(0) \
               : ::lockstep::internal::CheckFailed(__FILE__, __LINE__, #condition))

/// Returns the status of `expression` from the enclosing function unless it is OK.
#define LOCKSTEP_RETURN_IF_ERROR(expression) \
  LOCKSTEP_INTERNAL_RETURN(LOCKSTEP_INTERNAL_CONCAT(lockstep_status_, __COUNTER__), expression)

/// Assigns the value of a StatusOr to `target` (which may declare a variable), or returns its
/// status.
#define LOCKSTEP_ASSIGN_OR_RETURN(target, expression) \
  LOCKSTEP_INTERNAL_ASSIGN(LOCKSTEP_INTERNAL_CONCAT(lockstep_or_, __COUNTER__), target, expression)

// Names of their own, because `expression` may hold a lambda that uses these macros too.
#define LOCKSTEP_INTERNAL_CONCAT(a, b) LOCKSTEP_INTERNAL_CONCAT2(a, b)
#define LOCKSTEP_INTERNAL_CONCAT2(a, b) a##b
#define LOCKSTEP_INTERNAL_RETURN(status, expression)                     \
  do {                                                                   \
    if (absl::Status status = (expression); !status.ok()) return status; \
  } while (false)
#define LOCKSTEP_INTERNAL_ASSIGN(holder, target, expression) \
  auto holder = (expression);                                \
  if (!holder.ok()) return std::move(holder).status();       \
  target = *std::move(holder)

#endif  // LOCKSTEP_RUNTIME_STATUS_H_
