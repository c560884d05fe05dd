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
  absl::Status Identity() {
    const std::int64_t count = mine_.out_count();
    return Copy(
        {{const_cast<void*>(mine_.in), count, count, count}, {mine_.out, count, count, count}});
  }

  // These elements of the sum, into the outputs of all ranks or into this rank's.
  absl::Status Sum(Range elements, bool for_all) {
    ReduceWork work = Reduction();
    work.rows = 1;
    work.width = elements.end - elements.begin;
    work.num_outputs = for_all ? round_.world_size() : 1;
    for (int r = 0; r < round_.world_size(); ++r)
      work.in[r] = At(round_.call(r).in, elements.begin, mine_.dtype);
    for (int r = 0; r < work.num_outputs; ++r) {
      work.out[r] = At((for_all ? round_.call(r) : mine_).out, elements.begin, mine_.dtype);
    }
    return Launch(work);
  }

  absl::Status ReduceScatter() {
    ReduceWork work = Reduction();
    work.rows = mine_.outer;
    work.width = mine_.out_width;
    work.in_pitch = mine_.in_width;
    work.out_pitch = mine_.out_width;
    work.num_outputs = 1;
    for (int r = 0; r < round_.world_size(); ++r) {
      work.in[r] = PullOf(round_, round_.rank, r).from.data;
    }
    work.out[0] = mine_.out;
    return Launch(work);
  }

  absl::Status PullAll() {
    for (int giver = 0; giver < round_.world_size(); ++giver) {
      LOCKSTEP_RETURN_IF_ERROR(Copy(PullOf(round_, round_.rank, giver)));
    }
    return absl::OkStatus();
  }

  absl::Status AllToAllInPlace() {
    for (int other = 0; other < round_.world_size(); ++other) {
      if (other == round_.rank) continue;
      const Swap swap = SwapOf(round_, other);
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          device_, LaunchSwap(swap.mine, swap.others, swap.count * size_, stream_));
    }
    return absl::OkStatus();
  }

 private:
  ReduceWork Reduction() const {
    ReduceWork work = {};
    work.num_inputs = round_.world_size();
    work.dtype = mine_.dtype;
    work.op = mine_.op;
    return work;
  }
  absl::Status Launch(const ReduceWork& work) const {
    return LOCKSTEP_CUDA_STATUS(device_, LaunchReduce(work, stream_));
  }

  absl::Status Copy(const Pull& pull) {
    const auto& [from, to] = pull;
    if (to.count == 0 || to.data == from.data) return absl::OkStatus();
    const std::int64_t width = to.width * size_;
    if (to.count * size_ <= kKernelCopyBytes) {
      return LOCKSTEP_CUDA_STATUS(device_, LaunchCopy({.from = from.data,
                                                       .to = to.data,
                                                       .rows = to.rows(),
                                                       .width = width,
                                                       .from_pitch = from.pitch * size_,
                                                       .to_pitch = to.pitch * size_},
                                                      stream_));
    }
    // CUDA copies rows together while they are less than 2 GiB apart.
    const std::int64_t apart = std::max(to.pitch, from.pitch) * size_;
    if (to.rows() > 1 && apart <= std::numeric_limits<int>::max()) {
      return LOCKSTEP_CUDA_STATUS(
          device_,
          cudaMemcpy2DAsync(to.data, static_cast<std::size_t>(to.pitch * size_), from.data,
                            static_cast<std::size_t>(from.pitch * size_),
                            static_cast<std::size_t>(width), static_cast<std::size_t>(to.rows()),
                            cudaMemcpyDefault, stream_));
    }
    for (std::int64_t row = 0; row < to.rows(); ++row) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(
          device_, cudaMemcpyAsync(At(to.data, row * to.pitch, mine_.dtype),
                                   At(from.data, row * from.pitch, mine_.dtype),
                                   static_cast<std::size_t>(width), cudaMemcpyDefault, stream_));
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
      return mover.Sum(SliceOf(round.mine().in_count(), round.rank, round.world_size()),
                       /*for_all=*/true);
    case CollectiveKind::kReduceScatter:
      return mover.ReduceScatter();
    case CollectiveKind::kAllGather:
    case CollectiveKind::kBroadcast:
      return mover.PullAll();
    case CollectiveKind::kAllToAll:
      return round.mine().in_place() ? mover.AllToAllInPlace() : mover.PullAll();
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
      return mover.Sum(of_sum, /*for_all=*/false);
    case CollectiveKind::kAllToAll:
      return mover.PullAll();
    default:
      return QueueMoves(round, stream);
  }
}

}  // namespace lockstep::internal::cuda
