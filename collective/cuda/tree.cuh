// The arithmetic of reductions on a GPU: the bits of collective/reduce_tree.h.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_TREE_CUH_
#define LOCKSTEP_COLLECTIVE_CUDA_TREE_CUH_

#include <cstdint>
#include <type_traits>

#include "lockstep/collective/average.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/cuda/device_math.cuh"

namespace lockstep::internal::cuda {

/// What a thread moves at a time: 16 bytes, whatever the type.
template <typename T>
struct alignas(16) Slot {
  static constexpr int kLanes = static_cast<int>(16 / sizeof(T));
  T lanes[kLanes];
};

/// Rounded to T, a NaN to T's canonical quiet one.
template <typename T>
__device__ __forceinline__ T Rounded(Compute<T> value) {
  if constexpr (std::is_same_v<T, Float16>) {
    return value != value ? Float16{0x7E00} : As<Float16>(value);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return value != value ? BFloat16{0x7FC0} : As<BFloat16>(value);
  } else if constexpr (std::is_same_v<T, float>) {
    return value != value ? __uint_as_float(0x7FC00000u) : value;
  } else if constexpr (std::is_same_v<T, double>) {
    return value != value ? __longlong_as_double(0x7FF8000000000000ll) : value;
  } else {
    return value;
  }
}

/// All lanes of a slot.
template <typename T>
__device__ __forceinline__ Slot<T> Rounded(const Compute<T> (&values)[Slot<T>::kLanes]) {
  Slot<T> result;
  if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
    // Two at once. The conversion gives 0x7FFF for every NaN, the largest signed number of all.
    constexpr bool kIsHalf = std::is_same_v<T, Float16>;
    alignas(16) unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kIsHalf) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;"
            : "=r"(words[i])
            : "f"(values[2 * i + 1]), "f"(values[2 * i]));
      } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;"
            : "=r"(words[i])
            : "f"(values[2 * i + 1]), "f"(values[2 * i]));
      }
      words[i] = __vmins2(words[i], kIsHalf ? 0x7E007E00u : 0x7FC07FC0u);
    }
    static_assert(sizeof(words) == sizeof(result));
    result = *reinterpret_cast<const Slot<T>*>(&words);
  } else {
#pragma unroll
    for (int lane = 0; lane < Slot<T>::kLanes; ++lane)
      result.lanes[lane] = Rounded<T>(values[lane]);
  }
  return result;
}

/// One node of the tree. Integers wrap around; minimum and maximum are IEEE 754-2019's.
template <ReduceOp kOp, typename C>
__device__ __forceinline__ C Combine(C a, C b) {
  if constexpr (std::is_integral_v<C>) {
    using Unsigned = std::make_unsigned_t<C>;
    const auto ua = static_cast<Unsigned>(a);
    const auto ub = static_cast<Unsigned>(b);
    if constexpr (kOp == ReduceOp::kSum) return static_cast<C>(ua + ub);
    if constexpr (kOp == ReduceOp::kProduct) return static_cast<C>(ua * ub);
    if constexpr (kOp == ReduceOp::kMin) return b < a ? b : a;
    if constexpr (kOp == ReduceOp::kMax) return b > a ? b : a;
  } else {
    if constexpr (kOp == ReduceOp::kSum) return a + b;
    if constexpr (kOp == ReduceOp::kProduct) return a * b;
    if constexpr (kOp == ReduceOp::kMin || kOp == ReduceOp::kMax) {
      if (a != a) return a;
      if (b != b) return b;
      // Equal ones differ in the sign of zero at most.
      if (a == b) return (signbit(a) != 0) == (kOp == ReduceOp::kMin) ? a : b;
      return (b < a) == (kOp == ReduceOp::kMin) ? b : a;
    }
  }
}

/// Rounded each, which the compiler leaves out where it fuses a product with a sum.
__device__ __forceinline__ float Times(float value, float factor) {
  return __fmul_rn(value, factor);
}
__device__ __forceinline__ double Times(double value, double factor) {
  return __dmul_rn(value, factor);
}
__device__ __forceinline__ float Divided(float sum, int world_size) {
  return __fdiv_rn(sum, static_cast<float>(world_size));
}
__device__ __forceinline__ double Divided(double sum, int world_size) {
  return __ddiv_rn(sum, static_cast<double>(world_size));
}

/// The tree over values[0..world_size), world_size <= kMax: neighbours first, so that the left side
/// of every node holds a power of two. All indices are known to the compiler: it stays in
/// registers.
template <ReduceOp kOp, int kMax, typename C>
__device__ __forceinline__ C TreeOf(C (&values)[kMax], int world_size) {
#pragma unroll
  for (int stride = 1; stride < kMax; stride *= 2) {
#pragma unroll
    for (int left = 0; left + stride < kMax; left += 2 * stride) {
      if (left + stride < world_size) {
        values[left] = Combine<kOp>(values[left], values[left + stride]);
      }
    }
  }
  return values[0];
}

/// The tree over leaf(element) of one lane of every rank's slot.
template <ReduceOp kOp, typename T, int kMax, typename Leaf>
__device__ __forceinline__ Compute<T> TreeOfLane(const Slot<T> (&slots)[kMax], int lane,
                                                 int world_size, Leaf leaf) {
  Compute<T> values[kMax];
#pragma unroll
  for (int rank = 0; rank < kMax; ++rank) values[rank] = leaf(Load(slots[rank].lanes[lane]));
  return TreeOf<kOp>(values, world_size);
}

/// The average of one slot of every rank.
template <typename T, int kMax>
__device__ __forceinline__ Slot<T> AverageSlots(const Slot<T> (&slots)[kMax], int world_size) {
  using C = Compute<T>;
  constexpr int kLanes = Slot<T>::kLanes;
  C averages[kLanes];
  if constexpr (std::is_integral_v<T>) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      ExactSum<T> sum;
#pragma unroll
      for (int rank = 0; rank < kMax; ++rank) {
        if (rank < world_size) sum.Add(slots[rank].lanes[lane]);
      }
      averages[lane] = sum.Average(world_size);
    }
  } else {
    bool all_finite = true;
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const C sum =
          TreeOfLane<ReduceOp::kSum>(slots, lane, world_size, [](C element) { return element; });
      averages[lane] = Divided(sum, world_size);
      all_finite = all_finite && IsFinite(averages[lane]);
    }
    // The largest float16 are small numbers in float32.
    if (!std::is_same_v<T, Float16> && !all_finite) {
      const Downscale<C> scale = DownscaleFor<C>(world_size);
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const C sum = TreeOfLane<ReduceOp::kSum>(
            slots, lane, world_size, [&](C element) { return Times(element, scale.factor); });
        if (!IsFinite(averages[lane])) averages[lane] = AverageOfDownscaled(sum, scale);
      }
    }
  }
  return Rounded<T>(averages);
}

/// The reduction of one slot of every rank.
template <ReduceOp kOp, typename T, int kMax>
__device__ __forceinline__ Slot<T> ReduceSlots(const Slot<T> (&slots)[kMax], int world_size) {
  if constexpr (kOp == ReduceOp::kAverage) {
    return AverageSlots(slots, world_size);
  } else {
    constexpr int kLanes = Slot<T>::kLanes;
    Compute<T> values[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      values[lane] =
          TreeOfLane<kOp>(slots, lane, world_size, [](Compute<T> element) { return element; });
    }
    return Rounded<T>(values);
  }
}

/// Calls `visitor.template operator()<op>()`. The branch is the same for all threads.
template <typename Visitor>
__device__ __forceinline__ decltype(auto) VisitOp(ReduceOp op, Visitor&& visitor) {
  switch (op) {
    case ReduceOp::kProduct:
      return visitor.template operator()<ReduceOp::kProduct>();
    case ReduceOp::kMin:
      return visitor.template operator()<ReduceOp::kMin>();
    case ReduceOp::kMax:
      return visitor.template operator()<ReduceOp::kMax>();
    case ReduceOp::kAverage:
      return visitor.template operator()<ReduceOp::kAverage>();
    case ReduceOp::kSum:
      break;
  }
  return visitor.template operator()<ReduceOp::kSum>();
}

/// Slot number `slot` of `count` elements at `data`; what lies past the end is zero. `aligned`:
/// data is aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ Slot<T> LoadSlot(const T* data, std::int64_t slot, std::int64_t count,
                                            bool aligned) {
  constexpr int kLanes = Slot<T>::kLanes;
  const std::int64_t begin = slot * kLanes;
  if (begin >= count) return {};
  if (aligned && begin + kLanes <= count) {
    return *reinterpret_cast<const Slot<T>*>(data + begin);
  }
  Slot<T> loaded = {};
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    if (begin + lane < count) loaded.lanes[lane] = data[begin + lane];
  }
  return loaded;
}

template <typename T>
__device__ __forceinline__ void StoreSlot(T* data, std::int64_t slot, std::int64_t count,
                                          bool aligned, const Slot<T>& stored) {
  constexpr int kLanes = Slot<T>::kLanes;
  const std::int64_t begin = slot * kLanes;
  if (begin >= count) return;
  if (aligned && begin + kLanes <= count) {
    *reinterpret_cast<Slot<T>*>(data + begin) = stored;
    return;
  }
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    if (begin + lane < count) data[begin + lane] = stored.lanes[lane];
  }
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_TREE_CUH_
