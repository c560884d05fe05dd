// The checked longjmp, which some systems have by default, takes another stack for a mistake.
#undef _FORTIFY_SOURCE

#include "lockstep/tests/explore/fiber.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>

namespace lockstep::explore {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;

}  // namespace

Fiber::Fiber(void (*entry)(void*), void* argument)
    : entry_(entry), argument_(argument), entered_(false), stack_(new char[kStackBytes]) {}

void Fiber::Enter(unsigned high, unsigned low) {
  const auto address = (std::uintptr_t{high} << 32) | low;
  auto* self = reinterpret_cast<Fiber*>(address);
  self->entry_(self->argument_);
}

void Fiber::Switch(Fiber& from, Fiber& to) {
  if (_setjmp(from.at_) != 0) return;
  // _longjmp leaves the signal mask alone, which setcontext would ask the kernel for.
  if (to.entered_) _longjmp(to.at_, 1);
  to.entered_ = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = to.stack_.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  // The arguments of makecontext are ints.
  const auto address = reinterpret_cast<std::uintptr_t>(&to);
  makecontext(&context, reinterpret_cast<void (*)()>(&Fiber::Enter), 2,
              static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
  setcontext(&context);
}

}  // namespace lockstep::explore
