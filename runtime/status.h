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
// - kInvalidArgument: this rank asked for something impossible; fix the call.
// - kFailedPrecondition: the ranks asked for different things in one round, or the object is not in
//   a state for the call.
// - kDeadlineExceeded: a rank did not arrive in time; CollectiveBarrier::Reset(), then go on.
// - kAborted: another rank failed, or the group was poisoned before; the message holds the first
//   cause.
// - kCancelled: stale; the call belongs to a round from before a Reset().
// - kResourceExhausted: out of memory; without a text where there was no memory for one.
// - kUnavailable: the device, feature or child process cannot serve the call.
// - kInternal: a task threw, or a device failed for good.
#ifndef LOCKSTEP_RUNTIME_STATUS_H_
#define LOCKSTEP_RUNTIME_STATUS_H_

#include <utility>

#include "absl/functional/function_ref.h"
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

// Calls `call`, and comes back where that throws std::bad_alloc. Its `try` stands in status.cc, for
// users who compile without exceptions.
void CallWithinMemory(absl::FunctionRef<void()> call);

// Returns what `call` returns, a Status or a StatusOr; OutOfMemory() where it throws that.
template <typename Call>
auto OutOfMemoryAsStatus(Call&& call) -> decltype(call()) {
  decltype(call()) result = OutOfMemory();
  CallWithinMemory([&] { result = call(); });
  return result;
}

}  // namespace lockstep::internal

/// Stops the process when the condition is false. For lockstep's own bugs only: nothing that a
/// caller or the world does to a public function leads here.
#define LOCKSTEP_CHECK(...)                 \
  (bool(__VA_ARGS__) ? static_cast<void>(0) \
                     : ::lockstep::internal::CheckFailed(__FILE__, __LINE__, #__VA_ARGS__))

// Each of the two below is one statement, and may stand wherever a statement may: after an `if` or
// `else` without braces, in a loop, after a `case`. The expression may contain commas, and lambdas
// that use these macros too.

/// Returns the status of an expression from the enclosing function unless it is OK.
#define LOCKSTEP_RETURN_IF_ERROR(...) \
  LOCKSTEP_INTERNAL_RETURN(LOCKSTEP_INTERNAL_CONCAT(lockstep_status_, __COUNTER__), __VA_ARGS__)

/// Assigns the value of a StatusOr to `target`, or returns its status. `target` is what may stand
/// before a `=`: it may declare a variable; if it contains a comma, it goes in parentheses.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({4}, DType::kFloat32));
///   LOCKSTEP_ASSIGN_OR_RETURN((const auto [loss, num_correct]), SoftmaxCrossEntropy(...));
#define LOCKSTEP_ASSIGN_OR_RETURN(target, ...)                                  \
  LOCKSTEP_INTERNAL_ASSIGN(LOCKSTEP_INTERNAL_CONCAT(lockstep_or_, __COUNTER__), \
                           LOCKSTEP_INTERNAL_TARGET(target), __VA_ARGS__)

// Names of their own, because the expression may hold a lambda that uses these macros too.
#define LOCKSTEP_INTERNAL_CONCAT(a, b) LOCKSTEP_INTERNAL_CONCAT2(a, b)
#define LOCKSTEP_INTERNAL_CONCAT2(a, b) a##b
#define LOCKSTEP_INTERNAL_RETURN(status, ...)                             \
  do {                                                                    \
    if (absl::Status status = (__VA_ARGS__); !status.ok()) return status; \
  } while (false)
// A statement expression, which g++, clang and nvcc have: the only single statement that can
// declare a variable and return.
#define LOCKSTEP_INTERNAL_ASSIGN(holder, target, ...)    \
  target = __extension__({                               \
    auto holder = (__VA_ARGS__);                         \
    if (!holder.ok()) return std::move(holder).status(); \
    *std::move(holder);                                  \
  })

// `(target)` without its parentheses, and any other target as it is, `(*this).x` too: EAT leaves
// nothing of the former alone. A step more than it seems to need, for __VA_OPT__ to see what is
// left.
#define LOCKSTEP_INTERNAL_TARGET(target) \
  LOCKSTEP_INTERNAL_TARGET2(target, LOCKSTEP_INTERNAL_EAT target)
#define LOCKSTEP_INTERNAL_TARGET2(target, ...) LOCKSTEP_INTERNAL_TARGET3(target, __VA_ARGS__)
#define LOCKSTEP_INTERNAL_TARGET3(target, ...) \
  LOCKSTEP_INTERNAL_CONCAT(LOCKSTEP_INTERNAL_BARE, __VA_OPT__(_NOT))(target)
#define LOCKSTEP_INTERNAL_EAT(...)
#define LOCKSTEP_INTERNAL_BARE(target) LOCKSTEP_INTERNAL_BARE2 target
#define LOCKSTEP_INTERNAL_BARE2(...) __VA_ARGS__
#define LOCKSTEP_INTERNAL_BARE_NOT(target) target

#endif  // LOCKSTEP_RUNTIME_STATUS_H_
