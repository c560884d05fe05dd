// Atomics whose orders the user's ThreadSanitizer sees although lockstep was built without it.
#ifndef LOCKSTEP_RUNTIME_ANNOTATED_ATOMIC_H_
#define LOCKSTEP_RUNTIME_ANNOTATED_ATOMIC_H_

#include <atomic>

// The sanitizer's own functions (sanitizer/tsan_interface.h), where a program is linked with it;
// null elsewhere.
extern "C" {
[[gnu::weak]] void __tsan_acquire(void* address);  // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __tsan_release(void* address);  // NOLINT(bugprone-reserved-identifier)
}

namespace lockstep::internal {

/// std::atomic<T>, as far as lockstep uses it. An instrumented program that calls an uninstrumented
/// lockstep would be told of races on data that these atomics order: each access says what it
/// orders. Without a sanitizer that is a test of a null pointer. A build of lockstep with the
/// sanitizer is instrumented itself, and says nothing twice.
template <typename T>
class AnnotatedAtomic {
 public:
  using Order = std::memory_order;

  // NOLINTNEXTLINE(google-explicit-constructor): it is explicit(false), which version 14 misses
  explicit(false) constexpr AnnotatedAtomic(T value) : value_(value) {}
  AnnotatedAtomic(const AnnotatedAtomic&) = delete;
  AnnotatedAtomic& operator=(const AnnotatedAtomic&) = delete;

  T load(Order order) const {
    const T value = value_.load(order);
    Acquired(order);
    return value;
  }
  void store(T value, Order order) {
    Releasing(order);
    value_.store(value, order);
  }
  T exchange(T value, Order order) {
    Releasing(order);
    const T before = value_.exchange(value, order);
    Acquired(order);
    return before;
  }
  T fetch_sub(T by, Order order) {
    Releasing(order);
    const T before = value_.fetch_sub(by, order);
    Acquired(order);
    return before;
  }
  bool compare_exchange_weak(T& expected, T desired, Order success, Order failure) {
    Releasing(success);
    const bool done = value_.compare_exchange_weak(expected, desired, success, failure);
    Acquired(done ? success : failure);
    return done;
  }

 private:
#if defined(__SANITIZE_THREAD__)
  static constexpr bool kInstrumented = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
  static constexpr bool kInstrumented = true;
#else
  static constexpr bool kInstrumented = false;
#endif
#else
  static constexpr bool kInstrumented = false;
#endif

  void* address() const { return const_cast<std::atomic<T>*>(&value_); }
  void Acquired(Order order) const {
    if (kInstrumented || order == Order::relaxed || order == Order::release) return;
    if (__tsan_acquire != nullptr) __tsan_acquire(address());
  }
  void Releasing(Order order) {
    if (kInstrumented || order == Order::relaxed || order == Order::acquire) return;
    if (__tsan_release != nullptr) __tsan_release(address());
  }

  std::atomic<T> value_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_ANNOTATED_ATOMIC_H_
