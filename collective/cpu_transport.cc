#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/container/inlined_vector.h"
#include "lockstep/collective/reduce_tree.h"
#include "lockstep/collective/transport.h"

namespace lockstep::internal {
namespace {

// Between two looks at whether the round has failed: about 50 us of moving.
constexpr std::int64_t kStepBytes = 256 << 10;
// Slices meet at multiples of this many elements, so that no two ranks write one cache line.
constexpr std::int64_t kSliceElements = 64;
// A rank that writes this much or more writes past the cache: what it reads and writes, twice this,
// would not stay in it. On a Xeon with 2 MiB of L2 a core, float32 sums of two ranks lose a fifth
// by it at 1 MiB and win a third at 1.5 MiB.
constexpr std::int64_t kStreamingBytes = 3 << 19;

// Without memory of the heap up to 64 ranks.
using Inputs = absl::InlinedVector<const void*, 64>;
using Outputs = absl::InlinedVector<void*, 64>;

const void* At(const void* base, std::int64_t element, DType dtype) {
  return static_cast<const char*>(base) + element * static_cast<std::int64_t>(SizeOf(dtype));
}
void* At(void* base, std::int64_t element, DType dtype) {
  return static_cast<char*>(base) + element * static_cast<std::int64_t>(SizeOf(dtype));
}

// Calls `step(begin, length)` over [begin, end), until the round has failed.
template <typename Step>
void InSteps(const Round& round, std::int64_t begin, std::int64_t end, Step step) {
  const std::int64_t stride = kStepBytes / static_cast<std::int64_t>(SizeOf(round.mine().dtype));
  for (; begin < end; begin += stride) {
    step(begin, std::min(stride, end - begin));
    if (end - begin > stride && round.failed()) return;
  }
}

void CopySteps(const Round& round, const void* from, void* to, std::int64_t count) {
  if (from == to) return;
  const DType dtype = round.mine().dtype;
  InSteps(round, 0, count, [&](std::int64_t begin, std::int64_t length) {
    std::memcpy(At(to, begin, dtype), At(from, begin, dtype),
                static_cast<std::size_t>(length) * SizeOf(dtype));
  });
}

// A group of one: whatever the kind.
void Identity(const Round& round) {
  CopySteps(round, round.mine().in, round.mine().out, round.mine().out_count());
}

// This rank's slice, from all inputs into all outputs.
void AllReduce(const Round& round) {
  const CollectiveCall& mine = round.mine();
  const std::int64_t count = mine.in_count();
  const std::int64_t ranks = round.world_size();
  const std::int64_t lines = (count + kSliceElements - 1) / kSliceElements;
  const std::int64_t begin = std::min(count, lines * round.rank / ranks * kSliceElements);
  const std::int64_t end = std::min(count, lines * (round.rank + 1) / ranks * kSliceElements);
  const bool streaming =
      count * static_cast<std::int64_t>(SizeOf(mine.dtype)) * ranks > kStreamingBytes;
  Inputs inputs(round.calls.size());
  Outputs outputs(round.calls.size());
  InSteps(round, begin, end, [&](std::int64_t at, std::int64_t length) {
    for (std::size_t r = 0; r < round.calls.size(); ++r) {
      inputs[r] = At(round.calls[r]->in, at, mine.dtype);
      outputs[r] = At(round.calls[r]->out, at, mine.dtype);
    }
    ReduceTree(mine.dtype, mine.op, inputs, outputs, length, streaming);
  });
}

// This rank's part of every row, from all inputs into its own output.
void ReduceScatter(const Round& round) {
  const CollectiveCall& mine = round.mine();
  std::int64_t offset = 0;
  for (int r = 0; r < round.rank; ++r)
    offset += round.calls[static_cast<std::size_t>(r)]->out_width;
  Inputs inputs(round.calls.size());
  for (std::int64_t row = 0; row < mine.outer; ++row) {
    InSteps(round, 0, mine.out_width, [&](std::int64_t at, std::int64_t length) {
      for (std::size_t r = 0; r < round.calls.size(); ++r) {
        inputs[r] = At(round.calls[r]->in, row * mine.in_width + offset + at, mine.dtype);
      }
      void* const output = At(mine.out, row * mine.out_width + at, mine.dtype);
      ReduceTree(mine.dtype, mine.op, inputs, {&output, 1}, length, /*streaming=*/false);
    });
    if (round.failed()) return;
  }
}

// Every rank pulls: it reads far memory and writes its own.
void AllGather(const Round& round) {
  const CollectiveCall& mine = round.mine();
  std::int64_t offset = 0;
  for (const CollectiveCall* from : round.calls) {
    for (std::int64_t row = 0; row < mine.outer; ++row) {
      CopySteps(round, At(from->in, row * from->in_width, mine.dtype),
                At(mine.out, row * mine.out_width + offset, mine.dtype), from->in_width);
    }
    offset += from->in_width;
    if (round.failed()) return;
  }
}

void Broadcast(const Round& round) {
  const CollectiveCall& mine = round.mine();
  CopySteps(round, round.calls[static_cast<std::size_t>(mine.root)]->in, mine.out,
            mine.out_count());
}

// Where the part for, or from, `rank` begins, and how long it is.
struct Part {
  std::int64_t offset;
  std::int64_t count;
};
Part PartOf(const std::int64_t* counts, std::int64_t width, int rank, int world_size) {
  if (counts == nullptr) return {width / world_size * rank, width / world_size};
  std::int64_t offset = 0;
  for (int r = 0; r < rank; ++r) offset += counts[r];
  return {offset, counts[rank]};
}

void AllToAll(const Round& round) {
  const CollectiveCall& mine = round.mine();
  for (int s = 0; s < round.world_size(); ++s) {
    const CollectiveCall& from = *round.calls[static_cast<std::size_t>(s)];
    const Part sent = PartOf(from.send_counts(), from.in_width, round.rank, round.world_size());
    const Part received = PartOf(mine.receive_counts(), mine.out_width, s, round.world_size());
    CopySteps(round, At(from.in, sent.offset, mine.dtype),
              At(mine.out, received.offset, mine.dtype), sent.count);
    if (round.failed()) return;
  }
}

// Ranks r and s swap the parts that they have for each other: the lower rank the first half, the
// higher the second.
void AllToAllInPlace(const Round& round) {
  const CollectiveCall& mine = round.mine();
  const std::int64_t part = mine.out_width / round.world_size();
  for (int s = 0; s < round.world_size(); ++s) {
    if (s == round.rank) continue;
    char* here = static_cast<char*>(At(mine.out, part * s, mine.dtype));
    char* there = static_cast<char*>(
        At(round.calls[static_cast<std::size_t>(s)]->out, part * round.rank, mine.dtype));
    const std::int64_t half = part / 2;
    const std::int64_t begin = round.rank < s ? 0 : half;
    const std::int64_t end = round.rank < s ? half : part;
    InSteps(round, begin, end, [&](std::int64_t at, std::int64_t length) {
      const auto size = static_cast<std::int64_t>(SizeOf(mine.dtype));
      std::swap_ranges(here + at * size, here + (at + length) * size, there + at * size);
    });
    if (round.failed()) return;
  }
}

class CpuTransport : public Transport {
 public:
  absl::string_view name() const override { return "cpu"; }

  absl::Status Move(const Round& round) override {
    if (round.world_size() == 1) {
      Identity(round);
      return absl::OkStatus();
    }
    switch (round.mine().kind) {
      case CollectiveKind::kAllReduce:
        AllReduce(round);
        break;
      case CollectiveKind::kReduceScatter:
        ReduceScatter(round);
        break;
      case CollectiveKind::kAllGather:
        AllGather(round);
        break;
      case CollectiveKind::kBroadcast:
        Broadcast(round);
        break;
      case CollectiveKind::kAllToAll:
        if (round.mine().in_place()) {
          AllToAllInPlace(round);
        } else {
          AllToAll(round);
        }
        break;
      case CollectiveKind::kBarrier:
      case CollectiveKind::kSplit:
        break;
    }
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<Transport> MakeCpuTransport() { return std::make_unique<CpuTransport>(); }

}  // namespace lockstep::internal
