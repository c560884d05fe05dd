#include "lockstep/runtime/memory_pool.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <new>

#include "lockstep/runtime/block_cache.h"
#include "lockstep/runtime/cuda/memory_pool.h"

namespace lockstep {
namespace {

using internal::Block;

constexpr std::size_t kSmallest = 64;
// From here on a block is mapped by itself, so that freeing it gives it to the system, and gets
// pages of 2 MiB, if the system has them.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Null when there is none left.
void* MapAligned(std::size_t size) {
  void* const mapped =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  const std::size_t before =
      (kHugePage - reinterpret_cast<std::uintptr_t>(mapped) % kHugePage) % kHugePage;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + size, kHugePage - before);
  madvise(begin + before, size, MADV_HUGEPAGE);
  return begin + before;
}

void* AskSystem(std::size_t size) {
  return size < kHugePage ? std::aligned_alloc(kSmallest, size) : MapAligned(size);
}
void GiveBack(const Block& block) {
  if (block.size < kHugePage) {
    std::free(block.memory);
  } else {
    munmap(block.memory, block.size);
  }
}

class CpuMemoryPool final : public MemoryPool {
 public:
  ~CpuMemoryPool() override {
    // Blocks that outlive the pool go to the system, each with its last owner.
    cache_->Close();
    GiveBackAll();
  }

  absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) override {
    if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 2)
      return NoMemory(Device::Cpu(), bytes);
    try {
      const std::size_t size = internal::SizeClass(static_cast<std::size_t>(bytes), kSmallest);
      void* const block = Take(size);
      if (block == nullptr) return NoMemory(Device::Cpu(), bytes);
      return std::shared_ptr<void>(block, [cache = cache_, size](void* returned) {
        if (!cache->Put(size, returned)) GiveBack({returned, size});
      });
    } catch (const std::bad_alloc&) {
      return NoMemory(Device::Cpu(), bytes);
    }
  }

  absl::StatusOr<std::int64_t> Trim() override { return GiveBackAll(); }

  std::int64_t reserved_bytes() const override { return used_bytes() + free_bytes(); }
  std::int64_t used_bytes() const override { return cache_->used_bytes(); }
  std::int64_t free_bytes() const override { return cache_->free_bytes(); }

 private:
  std::int64_t GiveBackAll() {
    std::int64_t bytes = 0;
    while (const Block block = cache_->TakeOldest()) {
      GiveBack(block);
      bytes += static_cast<std::int64_t>(block.size);
    }
    return bytes;
  }

  void* Take(std::size_t size) {
    if (void* const block = cache_->Take(size)) return block;
    while (const Block surplus = cache_->TakeSurplus(size)) GiveBack(surplus);
    void* block = AskSystem(size);
    if (block == nullptr && GiveBackAll() > 0) block = AskSystem(size);
    if (block != nullptr) cache_->Add(size);
    return block;
  }

  const std::shared_ptr<internal::BlockCache> cache_ = std::make_shared<internal::BlockCache>();
};

}  // namespace

absl::Status MemoryPool::NoMemory(Device device, std::int64_t bytes) const {
  return internal::OutOfMemoryAsStatus([&] {
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory: ", bytes, " bytes asked for on ", device.is_cpu() ? "the CPU" : device.ToString(),
        ", and there are not that many; this rank's pool has ", used_bytes(), " in use and ",
        free_bytes(), " free"));
  });
}

absl::StatusOr<std::shared_ptr<MemoryPool>> MemoryPool::Create(const Stream& stream) {
  if (stream.device().is_cpu()) return std::make_shared<CpuMemoryPool>();
  return internal::cuda::MakeMemoryPool(stream);
}

}  // namespace lockstep
