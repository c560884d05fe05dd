#include "lockstep/runtime/float_mode.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <cfenv>
#endif

namespace lockstep::internal {
namespace {

// Writing is slow, so it is left out where nothing has changed. The clobbers keep what is loaded
// and stored on its side of the change.
#if defined(__x86_64__)

// MXCSR. The x87 unit has a register of its own, and computes long double alone.
constexpr std::uint64_t kFlags = 0x3F;
constexpr std::uint64_t kDefaultControl = 0x1F80;

std::uint64_t Read() {
  std::uint32_t mxcsr;
  asm volatile("stmxcsr %0" : "=m"(mxcsr) : : "memory");
  return mxcsr;
}
void Write(std::uint64_t value) {
  const auto mxcsr = static_cast<std::uint32_t>(value);
  asm volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}

std::uint64_t ReadControl() { return Read() & ~kFlags; }
std::uint64_t ReadFlags() { return Read() & kFlags; }
void WriteControl(std::uint64_t control) { Write(control | ReadFlags()); }
void WriteFlags(std::uint64_t flags) { Write(ReadControl() | flags); }

#elif defined(__aarch64__)

constexpr std::uint64_t kDefaultControl = 0;

std::uint64_t ReadControl() {
  std::uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
  return fpcr;
}
void WriteControl(std::uint64_t fpcr) { asm volatile("msr fpcr, %0" : : "r"(fpcr) : "memory"); }
std::uint64_t ReadFlags() {
  std::uint64_t fpsr;
  asm volatile("mrs %0, fpsr" : "=r"(fpsr) : : "memory");
  return fpsr;
}
void WriteFlags(std::uint64_t fpsr) { asm volatile("msr fpsr, %0" : : "r"(fpsr) : "memory"); }

#else

// What the standard library knows of: how it rounds, and what was raised.
constexpr std::uint64_t kDefaultControl = FE_TONEAREST;

std::uint64_t ReadControl() { return static_cast<std::uint64_t>(std::fegetround()); }
void WriteControl(std::uint64_t round) { std::fesetround(static_cast<int>(round)); }
std::uint64_t ReadFlags() { return static_cast<std::uint64_t>(std::fetestexcept(FE_ALL_EXCEPT)); }
void WriteFlags(std::uint64_t flags) {
  std::feclearexcept(FE_ALL_EXCEPT);
  std::feraiseexcept(static_cast<int>(flags));
}

#endif

}  // namespace

DefaultFloatMode::DefaultFloatMode() : control_(ReadControl()), flags_(ReadFlags()) {
  if (control_ != kDefaultControl) WriteControl(kDefaultControl);
}

// The flags first: with its traps back, a host must not find what was raised here.
DefaultFloatMode::~DefaultFloatMode() {
  if (ReadFlags() != flags_) WriteFlags(flags_);
  if (ReadControl() != control_) WriteControl(control_);
}

}  // namespace lockstep::internal
