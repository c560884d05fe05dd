#include "lockstep/runtime/memory_pool.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#include "lockstep/runtime/block_cache.h"
#include "lockstep/runtime/cuda/cuda.h"

namespace lockstep {
namespace {

constexpr std::size_t kSmallest = 64;
// From here on a block gets pages of 2 MiB, if the system has them.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class CpuMemoryPool final : public MemoryPool {
 public:
  absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) override {
    if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 2) return NoMemory(bytes);
    try {
      const std::size_t size = internal::SizeClass(static_cast<std::size_t>(bytes), kSmallest);
      void* const block = Take(size);
      if (block == nullptr) return NoMemory(bytes);
      return std::shared_ptr<void>(
          block, [cache = cache_, size](void* returned) { cache->Put(size, returned); });
    } catch (const std::bad_alloc&) {
      return NoMemory(bytes);
    }
  }

  std::int64_t reserved_bytes() const override {
    return reserved_bytes_.load(std::memory_order_relaxed);
  }

 private:
  static absl::Status NoMemory(std::int64_t bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory: ", bytes, " bytes asked for on the CPU, and there are not that many"));
  }

  void* Take(std::size_t size) {
    if (void* const block = cache_->Take(size)) return block;
    const bool huge = size >= kHugePage;
    void* const block = std::aligned_alloc(
        huge ? kHugePage : kSmallest, huge ? (size + kHugePage - 1) / kHugePage * kHugePage : size);
    if (block == nullptr) return nullptr;
    if (huge) madvise(block, size, MADV_HUGEPAGE);
    reserved_bytes_.fetch_add(static_cast<std::int64_t>(size), std::memory_order_relaxed);
    return block;
  }

  const std::shared_ptr<internal::BlockCache> cache_ =
      std::make_shared<internal::BlockCache>(&std::free);
  std::atomic<std::int64_t> reserved_bytes_{0};
};

}  // namespace

absl::StatusOr<std::shared_ptr<MemoryPool>> MemoryPool::Create(const Stream& stream) {
  if (stream.device().is_cpu()) return std::make_shared<CpuMemoryPool>();
  return internal::cuda::MakeMemoryPool(stream);
}

}  // namespace lockstep
