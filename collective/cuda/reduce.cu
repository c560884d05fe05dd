#include <algorithm>

#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/tree.cuh"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {
namespace {

constexpr int kThreads = 512;
// Enough blocks to fill any device a few times over; the rest is a loop.
constexpr std::int64_t kMaxBlocks = 1024;

// As ReduceWork, with room for kMax ranks.
template <int kMax>
struct ReduceArguments {
  const void* in[kMax] = {};
  void* out[kMax] = {};
  int num_inputs;
  int num_outputs;
  ReduceOp op;
  bool aligned;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t in_pitch;
  std::int64_t out_pitch;
};

// Slots of every rank that a thread has in flight: far memory is slow to answer.
template <int kMax>
constexpr int kInFlight = kMax <= 2   ? 4
                          : kMax <= 4 ? 2
                                      : 1;

template <typename T, int kMax>
__device__ void StoreAll(const ReduceArguments<kMax>& work, std::int64_t row, std::int64_t slot,
                         const Slot<T>& result) {
  for (int out = 0; out < work.num_outputs; ++out) {
    StoreSlot(static_cast<T*>(work.out[out]) + row * work.out_pitch, slot, work.width, work.aligned,
              result);
  }
}

template <typename T, int kMax>
__global__ void __launch_bounds__(kThreads)
    ReduceKernel(const __grid_constant__ ReduceArguments<kMax> work) {
  const std::int64_t slots_per_row = (work.width + Slot<T>::kLanes - 1) / Slot<T>::kLanes;
  const std::int64_t slots = work.rows * slots_per_row;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < slots;
       i += step * kInFlight<kMax>) {
    Slot<T> inputs[kInFlight<kMax>][kMax];
#pragma unroll
    for (int k = 0; k < kInFlight<kMax>; ++k) {
      const std::int64_t at = i + k * step;
      const std::int64_t row = work.rows == 1 ? 0 : at / slots_per_row;
#pragma unroll
      for (int rank = 0; rank < kMax; ++rank) {
        if (rank < work.num_inputs && at < slots) {
          inputs[k][rank] = LoadSlot(static_cast<const T*>(work.in[rank]) + row * work.in_pitch,
                                     at - row * slots_per_row, work.width, work.aligned);
        }
      }
    }
    VisitOp(work.op, [&]<ReduceOp kOp>() {
#pragma unroll
      for (int k = 0; k < kInFlight<kMax>; ++k) {
        const std::int64_t at = i + k * step;
        const std::int64_t row = work.rows == 1 ? 0 : at / slots_per_row;
        if (at < slots) {
          StoreAll(work, row, at - row * slots_per_row,
                   ReduceSlots<kOp>(inputs[k], work.num_inputs));
        }
      }
    });
  }
}

// More ranks than registers hold. Leaf after leaf, where two neighbours of one height stand on top
// they become one: the same tree, with one value per height.
template <ReduceOp kOp, typename T, typename Leaf>
__device__ Compute<T> TreeOfMany(const ReduceArguments<kMaxRanks>& work, std::int64_t offset,
                                 Leaf leaf) {
  Compute<T> partial[8];
  static_assert(kMaxRanks <= 64, "as high as 64 leaves and one over");
  int height = 0;
  for (int rank = 0; rank < work.num_inputs; ++rank) {
    partial[height++] = leaf(Load(static_cast<const T*>(work.in[rank])[offset]));
    for (int merged = rank + 1; merged % 2 == 0; merged /= 2) {
      --height;
      partial[height - 1] = Combine<kOp>(partial[height - 1], partial[height]);
    }
  }
  for (; height > 1; --height) {
    partial[height - 2] = Combine<kOp>(partial[height - 2], partial[height - 1]);
  }
  return partial[0];
}

template <typename T>
__device__ Compute<T> AverageOfMany(const ReduceArguments<kMaxRanks>& work, std::int64_t offset) {
  using C = Compute<T>;
  if constexpr (std::is_integral_v<T>) {
    ExactSum<T> sum;
    for (int rank = 0; rank < work.num_inputs; ++rank) {
      sum.Add(static_cast<const T*>(work.in[rank])[offset]);
    }
    return sum.Average(work.num_inputs);
  } else {
    const C sum = TreeOfMany<ReduceOp::kSum, T>(work, offset, [](C element) { return element; });
    const C average = Divided(sum, work.num_inputs);
    if (IsFinite(average)) return average;
    const Downscale<C> scale = DownscaleFor<C>(work.num_inputs);
    const C downscaled = TreeOfMany<ReduceOp::kSum, T>(
        work, offset, [&](C element) { return Times(element, scale.factor); });
    return AverageOfDownscaled(downscaled, scale);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ReduceManyKernel(const __grid_constant__ ReduceArguments<kMaxRanks> work) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       i < work.rows * work.width; i += step) {
    const std::int64_t row = i / work.width;
    const std::int64_t column = i - row * work.width;
    const std::int64_t offset = row * work.in_pitch + column;
    const Compute<T> value = VisitOp(work.op, [&]<ReduceOp kOp>() {
      if constexpr (kOp == ReduceOp::kAverage) {
        return AverageOfMany<T>(work, offset);
      } else {
        return TreeOfMany<kOp, T>(work, offset, [](Compute<T> element) { return element; });
      }
    });
    for (int out = 0; out < work.num_outputs; ++out) {
      static_cast<T*>(work.out[out])[row * work.out_pitch + column] = Rounded<T>(value);
    }
  }
}

unsigned BlocksFor(std::int64_t items) { return NumBlocks(items, kThreads, kMaxBlocks); }

// Words of type Word, to which all pointers, pitches and the width are aligned.
template <typename Word>
__global__ void CopyKernel(const __grid_constant__ CopyWork work) {
  const std::int64_t words = work.width / static_cast<std::int64_t>(sizeof(Word));
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
       i < work.rows * words; i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const std::int64_t row = i / words;
    const auto* from = static_cast<const char*>(work.from) + row * work.from_pitch;
    auto* to = static_cast<char*>(work.to) + row * work.to_pitch;
    reinterpret_cast<Word*>(to)[i - row * words] =
        reinterpret_cast<const Word*>(from)[i - row * words];
  }
}

template <typename Word>
cudaError_t LaunchCopyOf(const CopyWork& work, cudaStream_t stream) {
  const std::int64_t words = work.rows * work.width / static_cast<std::int64_t>(sizeof(Word));
  return Launch(CopyKernel<Word>, BlocksFor(words), kThreads, stream, work);
}

__global__ void SwapKernel(unsigned char* a, unsigned char* b, std::int64_t bytes) {
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < bytes;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const unsigned char kept = a[i];
    a[i] = b[i];
    b[i] = kept;
  }
}

// Whether every row of every rank begins at a multiple of 16 bytes.
bool AllAligned(const ReduceWork& work) {
  const auto size = static_cast<std::int64_t>(SizeOf(work.dtype));
  bool aligned = work.rows == 1 || (work.in_pitch * size % kSlotBytes == 0 &&
                                    work.out_pitch * size % kSlotBytes == 0);
  for (int rank = 0; rank < work.num_inputs; ++rank) aligned = aligned && IsAligned(work.in[rank]);
  for (int out = 0; out < work.num_outputs; ++out) aligned = aligned && IsAligned(work.out[out]);
  return aligned;
}

template <int kMax>
ReduceArguments<kMax> Narrowed(const ReduceWork& work) {
  ReduceArguments<kMax> narrow = {.num_inputs = work.num_inputs,
                                  .num_outputs = work.num_outputs,
                                  .op = work.op,
                                  .aligned = AllAligned(work),
                                  .rows = work.rows,
                                  .width = work.width,
                                  .in_pitch = work.in_pitch,
                                  .out_pitch = work.out_pitch};
  std::copy_n(work.in, work.num_inputs, narrow.in);
  std::copy_n(work.out, work.num_outputs, narrow.out);
  return narrow;
}

}  // namespace

cudaError_t LaunchReduce(const ReduceWork& work, cudaStream_t stream) {
  if (work.rows == 0 || work.width == 0) return cudaSuccess;
  const int ranks = std::max(work.num_inputs, work.num_outputs);
  if (ranks > kMaxPeers) {
    return VisitDType(work.dtype, [&]<typename T>() {
      return Launch(ReduceManyKernel<T>, BlocksFor(work.rows * work.width), kThreads, stream,
                    Narrowed<kMaxRanks>(work));
    });
  }
  return VisitKernel(work.dtype, ranks, [&]<typename T, int kMax>() {
    const std::int64_t slots = work.rows * DivideUp(work.width, Slot<T>::kLanes);
    return Launch(ReduceKernel<T, kMax>, BlocksFor(slots), kThreads, stream, Narrowed<kMax>(work));
  });
}

cudaError_t LaunchCopy(const CopyWork& work, cudaStream_t stream) {
  if (work.rows == 0 || work.width == 0) return cudaSuccess;
  const auto together =
      reinterpret_cast<std::uintptr_t>(work.from) | reinterpret_cast<std::uintptr_t>(work.to) |
      static_cast<std::uintptr_t>(work.width) |
      static_cast<std::uintptr_t>(work.rows == 1 ? 0 : work.from_pitch | work.to_pitch);
  if (together % sizeof(uint4) == 0) return LaunchCopyOf<uint4>(work, stream);
  if (together % sizeof(std::uint32_t) == 0) return LaunchCopyOf<std::uint32_t>(work, stream);
  return LaunchCopyOf<std::uint16_t>(work, stream);
}

cudaError_t LaunchSwap(void* a, void* b, std::int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  return Launch(SwapKernel, BlocksFor(bytes), kThreads, stream, static_cast<unsigned char*>(a),
                static_cast<unsigned char*>(b), bytes);
}

void LoadReduceKernels(KernelLoader& loader) {
  loader.Load(SwapKernel);
  loader.Load(CopyKernel<uint4>);
  loader.Load(CopyKernel<std::uint32_t>);
  loader.Load(CopyKernel<std::uint16_t>);
  ForEachKernel([&]<typename T, int kMax>() {
    loader.Load(ReduceKernel<T, kMax>);
    loader.Load(ReduceManyKernel<T>);
  });
}

}  // namespace lockstep::internal::cuda
