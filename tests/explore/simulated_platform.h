// The Platform under which the lock-free parts are explored, and plain data that notices races.
#ifndef LOCKSTEP_TESTS_EXPLORE_SIMULATED_PLATFORM_H_
#define LOCKSTEP_TESTS_EXPLORE_SIMULATED_PLATFORM_H_

#include <atomic>
#include <cstdint>

#include "lockstep/tests/explore/machine.h"

namespace lockstep::explore {

/// Stands in for std::atomic<T>, T an integer or an enumeration. Its value lives in the machine.
template <typename T>
class SimulatedAtomic {
 public:
  using Order = std::memory_order;

  explicit(false) SimulatedAtomic(T value) { TheMachine().Create(this, Pack(value)); }
  ~SimulatedAtomic() { TheMachine().Destroy(this); }
  SimulatedAtomic(const SimulatedAtomic&) = delete;
  SimulatedAtomic& operator=(const SimulatedAtomic&) = delete;

  T load(Order order = Order::seq_cst) const { return Unpack(TheMachine().Load(this, order)); }
  void store(T value, Order order = Order::seq_cst) {
    TheMachine().Store(this, Pack(value), order);
  }
  T exchange(T value, Order order = Order::seq_cst) {
    return Modify("exchange", order, [=](T) { return value; });
  }
  T fetch_add(T by, Order order = Order::seq_cst) {
    return Modify("fetch-add", order, [=](T value) { return static_cast<T>(value + by); });
  }
  T fetch_sub(T by, Order order = Order::seq_cst) {
    return Modify("fetch-sub", order, [=](T value) { return static_cast<T>(value - by); });
  }
  T fetch_or(T by, Order order = Order::seq_cst) {
    return Modify("fetch-or", order, [=](T value) { return static_cast<T>(value | by); });
  }
  T fetch_and(T by, Order order = Order::seq_cst) {
    return Modify("fetch-and", order, [=](T value) { return static_cast<T>(value & by); });
  }
  bool compare_exchange_weak(T& expected, T desired, Order success, Order failure) {
    return CompareExchange(expected, desired, /*weak=*/true, success, failure);
  }
  bool compare_exchange_strong(T& expected, T desired, Order success, Order failure) {
    return CompareExchange(expected, desired, /*weak=*/false, success, failure);
  }

 private:
  static std::uint64_t Pack(T value) { return static_cast<std::uint64_t>(value); }
  static T Unpack(std::uint64_t value) { return static_cast<T>(value); }
  template <typename Change>
  T Modify(const char* what, Order order, Change change) {
    return Unpack(TheMachine().Modify(
        this, what, order, [change](std::uint64_t value) { return Pack(change(Unpack(value))); }));
  }
  bool CompareExchange(T& expected, T desired, bool weak, Order success, Order failure) {
    std::uint64_t value = Pack(expected);
    const bool done =
        TheMachine().CompareExchange(this, value, Pack(desired), weak, success, failure);
    expected = Unpack(value);
    return done;
  }
};

/// In the place of NativePlatform (runtime/futex.h).
struct SimulatedPlatform {
  template <typename T>
  using Atomic = SimulatedAtomic<T>;

  static Time Now() { return TheMachine().Now(); }
  static void Pause() { TheMachine().Pause(); }
  static void Yield() { TheMachine().Pause(); }
  static void Park(const Atomic<std::uint64_t>& word, std::uint32_t expected, Time deadline) {
    TheMachine().Park(&word, expected, deadline);
  }
  static void UnparkAll(const Atomic<std::uint64_t>& word) { TheMachine().UnparkAll(&word); }
};

/// A variable that others protect: an access that nothing orders after an earlier one of another
/// thread, one of them a write, fails the execution.
template <typename T>
class Plain {
 public:
  T Read() const {
    TheMachine().Access(history_, /*write=*/false);
    return value_;
  }
  void Write(T value) {
    TheMachine().Access(history_, /*write=*/true);
    value_ = value;
  }

 private:
  T value_{};
  mutable AccessHistory history_;
};

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_SIMULATED_PLATFORM_H_
