#include "lockstep/runtime/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace lockstep {
namespace {

constexpr std::size_t kSmallest = 64;
// From here on a block gets pages of 2 MiB, if the system has them.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Rounded up to a power of two, or to one of the three steps between it and the next: at most a
// quarter is wasted.
std::size_t SizeClass(std::size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  const std::size_t step = std::max(kSmallest, std::bit_floor(bytes - 1) / 4);
  return (bytes + step - 1) / step * step;
}

// What the pool and its blocks share, so that blocks may outlive it.
struct FreeBlocks {
  ~FreeBlocks() {
    for (auto& [size, blocks] : by_size) {
      for (void* block : blocks) std::free(block);
    }
  }
  std::mutex mutex;
  std::map<std::size_t, std::vector<void*>> by_size;
  std::int64_t reserved_bytes = 0;
};

class CpuMemoryPool final : public MemoryPool {
 public:
  absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) override {
    if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 2) return NoMemory(bytes);
    try {
      const std::size_t size = SizeClass(static_cast<std::size_t>(bytes));
      void* const block = Take(size);
      if (block == nullptr) return NoMemory(bytes);
      return std::shared_ptr<void>(
          block, [free = free_, size](void* returned) { GiveBack(*free, size, returned); });
    } catch (const std::bad_alloc&) {
      return NoMemory(bytes);
    }
  }

  std::int64_t reserved_bytes() const override {
    const std::lock_guard lock(free_->mutex);
    return free_->reserved_bytes;
  }

 private:
  static absl::Status NoMemory(std::int64_t bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory: ", bytes, " bytes asked for on the CPU, and there are not that many"));
  }

  void* Take(std::size_t size) {
    const std::lock_guard lock(free_->mutex);
    std::vector<void*>& blocks = free_->by_size[size];
    if (!blocks.empty()) {
      void* const block = blocks.back();
      blocks.pop_back();
      return block;
    }
    // Room for one more now, so that giving back never needs memory.
    blocks.reserve(blocks.capacity() + 1);
    const bool huge = size >= kHugePage;
    void* const block = std::aligned_alloc(
        huge ? kHugePage : kSmallest, huge ? (size + kHugePage - 1) / kHugePage * kHugePage : size);
    if (block == nullptr) return nullptr;
    if (huge) madvise(block, size, MADV_HUGEPAGE);
    free_->reserved_bytes += static_cast<std::int64_t>(size);
    return block;
  }

  static void GiveBack(FreeBlocks& free, std::size_t size, void* block) {
    const std::lock_guard lock(free.mutex);
    free.by_size[size].push_back(block);
  }

  const std::shared_ptr<FreeBlocks> free_ = std::make_shared<FreeBlocks>();
};

}  // namespace

absl::StatusOr<std::shared_ptr<MemoryPool>> MemoryPool::Create(Device device) {
  if (device.is_cpu()) return std::make_shared<CpuMemoryPool>();
  return absl::UnavailableError(
      absl::StrCat("memory: ", device.ToString(), " asked for, but this build has no CUDA"));
}

}  // namespace lockstep
