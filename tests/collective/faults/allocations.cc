#include "lockstep/tests/collective/faults/allocations.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

// Since Arm().
std::atomic<int> count{0};
std::atomic<int> fail_from{0};
std::atomic<int> fail_to{0};
std::atomic<bool> armed{false};

void* Allocate(std::size_t size, std::size_t alignment) {
  if (armed.load(std::memory_order_relaxed)) {
    const int number = ++count;
    if (number >= fail_from && number <= fail_to) throw std::bad_alloc();
  }
  void* const memory =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(size)
          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Of the program, and so of its shared libraries too.
#define EXPORTED __attribute__((visibility("default")))
EXPORTED void* operator new(std::size_t size) { return Allocate(size, 1); }
EXPORTED void* operator new[](std::size_t size) { return Allocate(size, 1); }
EXPORTED void* operator new(std::size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
EXPORTED void* operator new[](std::size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
EXPORTED void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return std::malloc(size);
}
EXPORTED void operator delete(void* memory) noexcept { std::free(memory); }
EXPORTED void operator delete[](void* memory) noexcept { std::free(memory); }
EXPORTED void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
EXPORTED void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
EXPORTED void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
EXPORTED void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
EXPORTED void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
EXPORTED void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
EXPORTED void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace lockstep::testing {

void Arm(int from, int to) {
  count = 0;
  fail_from = from;
  fail_to = to;
  armed = true;
}

bool Disarm() {
  armed = false;
  return count >= fail_from;
}

int NumAllocations() { return count; }

}  // namespace lockstep::testing
