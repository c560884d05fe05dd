// The floating-point modes that a host's thread may be in, and whether it still is.
#ifndef LOCKSTEP_TESTS_FLOAT_MODES_H_
#define LOCKSTEP_TESTS_FLOAT_MODES_H_

#include <cstdint>

namespace lockstep::testing {

/// The register that a host sets, with the flags raised so far.
struct FloatState {
  std::uint64_t control = 0;
  std::uint64_t flags = 0;
  bool operator==(const FloatState&) const = default;
};

#if defined(__x86_64__)

inline FloatState ReadFloatState() {
  std::uint32_t mxcsr;
  asm volatile("stmxcsr %0" : "=m"(mxcsr) : : "memory");
  return {.control = mxcsr & ~0x3Fu, .flags = mxcsr & 0x3Fu};
}
inline void WriteFloatState(FloatState state) {
  const auto mxcsr = static_cast<std::uint32_t>(state.control | state.flags);
  asm volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}

#elif defined(__aarch64__)

inline FloatState ReadFloatState() {
  FloatState state;
  asm volatile("mrs %0, fpcr" : "=r"(state.control) : : "memory");
  asm volatile("mrs %0, fpsr" : "=r"(state.flags) : : "memory");
  return state;
}
inline void WriteFloatState(FloatState state) {
  asm volatile("msr fpcr, %0" : : "r"(state.control) : "memory");
  asm volatile("msr fpsr, %0" : : "r"(state.flags) : "memory");
}

#endif

/// One mode by name. `traps`: what raises a flag ends the process.
struct FloatMode {
  const char* name;
  FloatState state;
  bool traps = false;
};

/// All but the default mode.
#if defined(__x86_64__)
inline constexpr FloatMode kFloatModes[] = {
    {"flush to zero", {.control = 0x9F80}},
    {"denormals are zero", {.control = 0x1FC0}},
    {"both", {.control = 0x9FC0}},
    {"down", {.control = 0x3F80}},
    {"up", {.control = 0x5F80}},
    {"towards zero", {.control = 0x7F80}},
    {"traps", {.control = 0x0000}, true},
    {"traps, both and up, with flags", {.control = 0xC040, .flags = 0x05}, true},
    {"the host's own flags", {.control = 0x1F80, .flags = 0x1A}},
};
#elif defined(__aarch64__)
inline constexpr FloatMode kFloatModes[] = {
    {"flush to zero", {.control = 1u << 24}},
    {"down", {.control = 2u << 22}},
    {"up", {.control = 1u << 22}},
    {"towards zero", {.control = 3u << 22}},
    {"one NaN", {.control = 1u << 25}},
    {"traps", {.control = 0x9F00}, true},
    {"the host's own flags", {.flags = 0x11}},
};
#endif

/// Runs `call` in `mode` and says whether the thread's mode and flags are as they were before it.
/// Leaves the thread in the mode it was in.
template <typename Call>
bool KeepsMode(const FloatMode& mode, const Call& call) {
  const FloatState own = ReadFloatState();
  WriteFloatState(mode.state);
  // Modes that this processor has: some have no traps.
  const FloatState before = ReadFloatState();
  call();
  const FloatState after = ReadFloatState();
  WriteFloatState(own);
  return after == before;
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_FLOAT_MODES_H_
