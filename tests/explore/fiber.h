// A thread of execution that runs only when it is switched to.
#ifndef LOCKSTEP_TESTS_EXPLORE_FIBER_H_
#define LOCKSTEP_TESTS_EXPLORE_FIBER_H_

#include <csetjmp>
#include <memory>

namespace lockstep::explore {

/// A stack of its own, or, made without an entry, the stack of whoever made it. A switch takes some
/// ten nanoseconds and no system call. Nothing may be thrown out of a fiber, and one that is
/// abandoned in the middle destroys nothing.
///
///   Fiber here, there(&Loop, &argument);
///   Fiber::Switch(here, there);   // runs Loop(&argument) until it switches back
class Fiber {
 public:
  Fiber() = default;
  /// `entry` must not return.
  Fiber(void (*entry)(void*), void* argument);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves `from`, which is what runs, and goes on with `to` where that was left.
  static void Switch(Fiber& from, Fiber& to);

 private:
  static void Enter(unsigned high, unsigned low);

  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool entered_ = true;
  // Not cleared: nobody reads what it did not write.
  std::unique_ptr<char[]> stack_;
  std::jmp_buf at_;
};

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_FIBER_H_
