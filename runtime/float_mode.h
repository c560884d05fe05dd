// The floating-point mode of a thread: how it rounds, whether it keeps subnormals, what traps.
#ifndef LOCKSTEP_RUNTIME_FLOAT_MODE_H_
#define LOCKSTEP_RUNTIME_FLOAT_MODE_H_

#include <cstdint>

namespace lockstep::internal {

/// While it lives, the calling thread rounds to nearest, keeps subnormals and traps nothing; then
/// it has back the mode in which it was found, and the exception flags that were raised. For calls
/// of other libraries: the compiler knows nothing of modes and may move arithmetic past this.
class DefaultFloatMode {
 public:
  DefaultFloatMode();
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;
  ~DefaultFloatMode();

 private:
  std::uint64_t control_;
  std::uint64_t flags_;
};

/// Returns compute(), called in that mode. Never inlined: what compute reads and writes by
/// reference goes through memory, and so stays on its side of the change.
template <typename Function>
[[gnu::noinline]] auto InDefaultFloatMode(const Function& compute) {
  const DefaultFloatMode mode;
  return compute();
}

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_FLOAT_MODE_H_
