// The blocks of a memory pool that nobody uses now, by size.
#ifndef LOCKSTEP_RUNTIME_BLOCK_CACHE_H_
#define LOCKSTEP_RUNTIME_BLOCK_CACHE_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace lockstep::internal {

/// `bytes` rounded up to a power of two, or to one of the three steps between it and the next, and
/// to `smallest`: at most a quarter is wasted.
inline std::size_t SizeClass(std::size_t bytes, std::size_t smallest) {
  if (bytes <= smallest) return smallest;
  const std::size_t step = std::max(smallest, std::bit_floor(bytes - 1) / 4);
  return (bytes + step - 1) / step * step;
}

/// Keeps blocks until they are taken or the cache ends. From any thread.
class BlockCache {
 public:
  /// `free_block` gives a block back to the system.
  explicit BlockCache(void (*free_block)(void*)) : free_block_(free_block) {}
  ~BlockCache() {
    for (auto& [size, blocks] : by_size_) {
      for (void* block : blocks) free_block_(block);
    }
  }
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  /// A block of exactly `size`, or null. Makes sure that there is room to give one back, so that
  /// Put needs no memory for it. May throw std::bad_alloc.
  void* Take(std::size_t size) {
    const std::lock_guard lock(mutex_);
    std::vector<void*>& blocks = by_size_[size];
    if (blocks.empty()) {
      blocks.reserve(blocks.capacity() + 1);
      return nullptr;
    }
    void* const block = blocks.back();
    blocks.pop_back();
    return block;
  }

  /// Takes back a block that was asked for by Take.
  void Put(std::size_t size, void* block) {
    const std::lock_guard lock(mutex_);
    by_size_[size].push_back(block);
  }

 private:
  void (*const free_block_)(void*);
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> by_size_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_BLOCK_CACHE_H_
