// The blocks of a memory pool that nobody uses now, by size, and how many bytes the pool has.
#ifndef LOCKSTEP_RUNTIME_BLOCK_CACHE_H_
#define LOCKSTEP_RUNTIME_BLOCK_CACHE_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
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

struct Block {
  void* memory = nullptr;
  std::size_t size = 0;

  explicit operator bool() const { return memory != nullptr; }
};

/// Keeps blocks until they are taken; whoever owns it gives them back to the system. Blocks may be
/// put from any thread, and figures read.
class BlockCache {
 public:
  BlockCache() = default;
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  /// A block of exactly `size`, or null. Makes sure that there is room to give one back, so that
  /// Put needs no memory for it. May throw std::bad_alloc.
  void* Take(std::size_t size) {
    const std::lock_guard lock(mutex_);
    std::vector<Kept>& kept = by_size_[size];
    if (kept.empty()) {
      kept.reserve(kept.capacity() + 1);
      return nullptr;
    }
    void* const block = kept.back().memory;
    kept.pop_back();
    free_bytes_ -= size;
    Use(size);
    return block;
  }

  /// Counts a block that the system gave after Take had none.
  void Add(std::size_t size) {
    const std::lock_guard lock(mutex_);
    Use(size);
  }

  /// Takes back a block. False after Close: the caller gives it to the system.
  bool Put(std::size_t size, void* memory) {
    const std::lock_guard lock(mutex_);
    used_bytes_ -= size;
    if (closed_) return false;
    by_size_[size].push_back({memory, ++num_puts_});
    free_bytes_ += size;
    return true;
  }

  /// The block that has lain here longest, if one more of `size` would break the bound of
  /// MemoryPool; otherwise a null one. For the system.
  Block TakeSurplus(std::size_t size) {
    const std::lock_guard lock(mutex_);
    const std::size_t max_used = std::max(max_used_bytes_, used_bytes_ + size);
    const bool fits = used_bytes_ + free_bytes_ + size <= kMaxReserved * max_used;
    return fits ? Block() : Oldest();
  }

  /// The same, if there is any.
  Block TakeOldest() {
    const std::lock_guard lock(mutex_);
    return Oldest();
  }

  /// No block is kept from now on.
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  std::int64_t used_bytes() const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int64_t>(used_bytes_);
  }
  std::int64_t free_bytes() const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int64_t>(free_bytes_);
  }

 private:
  // What a pool has is at most this many times what was ever in use at once.
  static constexpr std::size_t kMaxReserved = 3;

  struct Kept {
    void* memory;
    std::uint64_t put;  // how many had come back before, so that the lowest lies longest
  };

  void Use(std::size_t size) {
    used_bytes_ += size;
    max_used_bytes_ = std::max(max_used_bytes_, used_bytes_);
  }

  Block Oldest() {
    auto oldest = by_size_.end();
    for (auto at = by_size_.begin(); at != by_size_.end(); ++at) {
      if (at->second.empty()) continue;
      // Taken from the back and put there: the first of a size lies longest.
      if (oldest == by_size_.end() || at->second.front().put < oldest->second.front().put)
        oldest = at;
    }
    if (oldest == by_size_.end()) return {};
    const Block block = {oldest->second.front().memory, oldest->first};
    oldest->second.erase(oldest->second.begin());
    free_bytes_ -= block.size;
    return block;
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<Kept>> by_size_;
  std::size_t used_bytes_ = 0;
  std::size_t free_bytes_ = 0;
  std::size_t max_used_bytes_ = 0;
  std::uint64_t num_puts_ = 0;
  bool closed_ = false;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_BLOCK_CACHE_H_
