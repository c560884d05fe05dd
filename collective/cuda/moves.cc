#include "lockstep/collective/cuda/moves.h"

#include <algorithm>
#include <limits>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {
namespace {

// Up to here a kernel has copied before a copy engine has started.
constexpr std::int64_t kKernelCopyBytes = 1 << 20;

class Mover {
 public:
  Mover(const Round& round, const Stream& stream)
      : round_(round),
        mine_(round.mine()),
        device_(stream.device()),
        stream_(NativeStream(stream)),
        size_(static_cast<std::int64_t>(SizeOf(mine_.dtype))) {}

  // A group of one: whatever the kind.
  absl::Status Identity() { return CopyRows(mine_.out, 0, mine_.in, 0, mine_.out_count(), 1); }

  absl::Status AllReduce() {
    const auto [begin, end] = SliceOf(mine_.in_count(), round_.rank, round_.world_size());
    ReduceWork work = Work(begin);
    work.rows = 1;
    work.width = end - begin;
    work.num_outputs = round_.world_size();
    for (std::size_t r = 0; r < round_.calls.size(); ++r) {
      work.out[r] = At(round_.calls[r]->out, begin);
    }
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchReduce(work, stream_));
    return absl::OkStatus();
  }

  // These elements of the sum, into this rank's output.
  absl::Status PullSum(Range elements) {
    ReduceWork work = Work(elements.begin);
    work.rows = 1;
    work.width = elements.end - elements.begin;
    work.num_outputs = 1;
    work.out[0] = At(mine_.out, elements.begin);
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchReduce(work, stream_));
    return absl::OkStatus();
  }

  absl::Status ReduceScatter() {
    std::int64_t offset = 0;
    for (int r = 0; r < round_.rank; ++r) offset += Call(r).out_width;
    ReduceWork work = Work(offset);
    work.rows = mine_.outer;
    work.width = mine_.out_width;
    work.in_pitch = mine_.in_width;
    work.out_pitch = mine_.out_width;
    work.num_outputs = 1;
    work.out[0] = mine_.out;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchReduce(work, stream_));
    return absl::OkStatus();
  }

  absl::Status AllGather() {
    std::int64_t offset = 0;
    for (const CollectiveCall* from : round_.calls) {
      LOCKSTEP_RETURN_IF_ERROR(CopyRows(At(mine_.out, offset), mine_.out_width, from->in,
                                        from->in_width, from->in_width, mine_.outer));
      offset += from->in_width;
    }
    return absl::OkStatus();
  }

  absl::Status Broadcast() {
    return CopyRows(mine_.out, 0, Call(mine_.root).in, 0, mine_.out_width, 1);
  }

  absl::Status AllToAll() {
    for (int s = 0; s < round_.world_size(); ++s) {
      const CollectiveCall& from = Call(s);
      const FlatPart sent =
          PartOf(from.send_counts(), from.in_width, round_.rank, round_.world_size());
      const FlatPart received =
          PartOf(mine_.receive_counts(), mine_.out_width, s, round_.world_size());
      LOCKSTEP_RETURN_IF_ERROR(CopyRows(At(mine_.out, received.offset), 0, At(from.in, sent.offset),
                                        0, received.count, 1));
    }
    return absl::OkStatus();
  }

  // Ranks r and s swap the parts that they have for each other: the lower rank the first half, the
  // higher the second.
  absl::Status AllToAllInPlace() {
    const std::int64_t part = mine_.out_width / round_.world_size();
    for (int s = 0; s < round_.world_size(); ++s) {
      if (s == round_.rank) continue;
      const std::int64_t half = part / 2;
      const std::int64_t begin = round_.rank < s ? 0 : half;
      const std::int64_t length = round_.rank < s ? half : part - half;
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchSwap(At(mine_.out, part * s + begin),
                                                        At(Call(s).out, part * round_.rank + begin),
                                                        length * size_, stream_));
    }
    return absl::OkStatus();
  }

 private:
  const CollectiveCall& Call(int rank) const {
    return *round_.calls[static_cast<std::size_t>(rank)];
  }
  void* At(void* base, std::int64_t element) const {
    return static_cast<char*>(base) + element * size_;
  }
  const void* At(const void* base, std::int64_t element) const {
    return static_cast<const char*>(base) + element * size_;
  }

  ReduceWork Work(std::int64_t offset) const {
    ReduceWork work = {};
    work.num_inputs = round_.world_size();
    work.dtype = mine_.dtype;
    work.op = mine_.op;
    for (std::size_t r = 0; r < round_.calls.size(); ++r) {
      work.in[r] = At(round_.calls[r]->in, offset);
    }
    return work;
  }

  // Pitches and width in elements.
  absl::Status CopyRows(void* to, std::int64_t to_pitch, const void* from, std::int64_t from_pitch,
                        std::int64_t width, std::int64_t rows) {
    if (width == 0 || rows == 0 || to == from) return absl::OkStatus();
    const auto bytes = static_cast<std::size_t>(width * size_);
    if (rows * width * size_ <= kKernelCopyBytes) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchCopy({.from = from,
                                                         .to = to,
                                                         .rows = rows,
                                                         .width = width * size_,
                                                         .from_pitch = from_pitch * size_,
                                                         .to_pitch = to_pitch * size_},
                                                        stream_));
      return absl::OkStatus();
    }
    // CUDA copies rows together while they are less than 2 GiB apart.
    const bool together = std::max(to_pitch, from_pitch) * size_ <= std::numeric_limits<int>::max();
    if (rows > 1 && together) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          device_, cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_pitch * size_), from,
                                     static_cast<std::size_t>(from_pitch * size_), bytes,
                                     static_cast<std::size_t>(rows), cudaMemcpyDefault, stream_));
      return absl::OkStatus();
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          device_, cudaMemcpyAsync(At(to, row * to_pitch), At(from, row * from_pitch), bytes,
                                   cudaMemcpyDefault, stream_));
    }
    return absl::OkStatus();
  }

  const Round& round_;
  const CollectiveCall& mine_;
  const Device device_;
  const cudaStream_t stream_;
  const std::int64_t size_;
};

}  // namespace

absl::Status QueueMoves(const Round& round, const Stream& stream) {
  const DeviceGuard guard(stream.device());
  Mover mover(round, stream);
  if (round.world_size() == 1) return mover.Identity();
  switch (round.mine().kind) {
    case CollectiveKind::kAllReduce:
      return mover.AllReduce();
    case CollectiveKind::kReduceScatter:
      return mover.ReduceScatter();
    case CollectiveKind::kAllGather:
      return mover.AllGather();
    case CollectiveKind::kBroadcast:
      return mover.Broadcast();
    case CollectiveKind::kAllToAll:
      return round.mine().in_place() ? mover.AllToAllInPlace() : mover.AllToAll();
    case CollectiveKind::kBarrier:
    case CollectiveKind::kSplit:
      break;
  }
  return absl::OkStatus();
}

absl::Status QueuePull(const Round& round, const Stream& stream, Range of_sum) {
  const DeviceGuard guard(stream.device());
  Mover mover(round, stream);
  switch (round.mine().kind) {
    case CollectiveKind::kAllReduce:
      return mover.PullSum(of_sum);
    case CollectiveKind::kAllToAll:
      return mover.AllToAll();
    default:
      return QueueMoves(round, stream);
  }
}

}  // namespace lockstep::internal::cuda
