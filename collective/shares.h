// Which elements each rank moves in a round: its slice of a sum, and in the other collectives what
// one rank takes from another.
#ifndef LOCKSTEP_COLLECTIVE_SHARES_H_
#define LOCKSTEP_COLLECTIVE_SHARES_H_

#include <algorithm>
#include <cstdint>

#include "lockstep/collective/transport.h"

namespace lockstep::internal {

constexpr std::int64_t DivideUp(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Where an element of a tensor stands, which is not written to unless it may be.
inline void* At(const void* base, std::int64_t element, DType dtype) {
  return const_cast<char*>(static_cast<const char*>(base)) +
         element * static_cast<std::int64_t>(SizeOf(dtype));
}

/// Elements [begin, end) of a tensor.
struct Range {
  std::int64_t begin;
  std::int64_t end;
};

/// The elements of a sum that `rank` reduces for all: equal parts to a line of memory, so that no
/// two ranks write to one, in rank order.
constexpr Range SliceOf(std::int64_t elements, int rank, int world_size) {
  constexpr std::int64_t kElements = 64;  // whole lines of memory in every type
  const std::int64_t lines = DivideUp(elements, kElements);
  return {std::min(elements, lines * rank / world_size * kElements),
          std::min(elements, lines * (rank + 1) / world_size * kElements)};
}

/// A part of a tensor: `count` elements in rows of `width`, which begin `pitch` elements apart.
struct Part {
  void* data = nullptr;
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;

  bool contiguous() const { return width == pitch || count == width; }
  std::int64_t rows() const { return width == 0 ? 0 : count / width; }
};

/// What one rank's output takes from one rank's input. Both parts have the same rows.
struct Pull {
  Part from;
  Part to;
};

/// What `taker` takes from `giver` in a reduce-scatter (to combine what all give), all-gather,
/// broadcast or all-to-all.
Pull PullOf(const Round& round, int taker, int giver);

/// What the rank swaps with `other` in an all-to-all in place: of the parts that they have for each
/// other, the lower rank swaps the first half and the higher one the second.
struct Swap {
  void* mine;
  void* others;
  std::int64_t count;
};
Swap SwapOf(const Round& round, int other);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_COLLECTIVE_SHARES_H_
