// The loops behind ReduceTree. Compiled once per Highway target: include it only from a source that
// foreach_target.h includes again and again. Vectors are never kept in arrays or structs, because
// those of Arm's SVE have no size at compile time.
#if defined(LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#undef LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#else
#define LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "absl/types/span.h"
#include "lockstep/collective/average.h"
#include "lockstep/collective/reduce_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::internal {
namespace HWY_NAMESPACE {

// ---- One pass over memory, with up to eight inputs in registers.

inline constexpr std::size_t kMaxLeaves = 8;

/// A cache line, so that each line is written as a whole. No vector that streams is wider.
inline constexpr std::size_t kStreamAlignment = 64;

/// What sums of floats are divided by. `factor` is the inverse where it is exact, so that
/// multiplying gives the same bits sooner, or else 0.
struct Scale {
  double divisor = 1;
  double factor = 1;
};

inline Scale ScaleForAverage(std::size_t count) {
  const auto divisor = static_cast<double>(count);
  return {.divisor = divisor, .factor = std::has_single_bit(count) ? 1 / divisor : 0};
}

/// outputs[*][out_begin + i] = tree over inputs[0..][in_begin + i], for i in [0, count).
struct Pass {
  absl::Span<const void* const> inputs;
  std::size_t in_begin = 0;
  absl::Span<void* const> outputs;
  std::size_t out_begin = 0;
  std::size_t count = 0;
  /// Averages of floats alone: a pass ends before the first step whose averages are not finite.
  Scale scale = {};
  /// Requires &outputs[*][out_begin] to be aligned to kStreamAlignment.
  bool streaming = false;
};

/// Where the tree over `count` leaves splits: the largest power of two below it.
constexpr std::size_t LeftLeaves(std::size_t count) { return std::bit_floor(count - 1); }

template <class Op, std::size_t kCount, class Load, typename In, class D>
HWY_INLINE hn::Vec<D> CombineLeaves(D d, Load load, const In* const* inputs, std::size_t i) {
  if constexpr (kCount == 1) {
    return load(d, inputs[0] + i);
  } else {
    constexpr std::size_t kLeft = LeftLeaves(kCount);
    const auto left = CombineLeaves<Op, kLeft>(d, load, inputs, i);
    const auto right = CombineLeaves<Op, kCount - kLeft>(d, load, inputs + kLeft, i);
    return Op::Combine(d, left, right);
  }
}

/// Whether the operation scales at all is known to the compiler, so that the loops of the others
/// have no branch for it.
template <class Op, class D>
HWY_INLINE bool IsScaled(D, const Scale& scale) {
  if constexpr (std::is_same_v<Op, SumOp> && std::is_floating_point_v<hn::TFromD<D>>) {
    return scale.divisor != 1;
  } else {
    return false;
  }
}

/// Scales both. Returns whether they are finite, or could not be otherwise: sums of float16 are
/// small numbers in float32.
template <typename In, class D>
HWY_INLINE bool ScaleTo(D d, const Scale& scale, hn::Vec<D>& a, hn::Vec<D>& b) {
  using T = hn::TFromD<D>;
  if constexpr (std::is_floating_point_v<T>) {
    if (scale.factor != 0) {
      const auto factor = hn::Set(d, static_cast<T>(scale.factor));
      a = hn::Mul(a, factor);
      b = hn::Mul(b, factor);
    } else {
      const auto divisor = hn::Set(d, static_cast<T>(scale.divisor));
      a = hn::Div(a, divisor);
      b = hn::Div(b, divisor);
    }
    if constexpr (!std::is_same_v<In, Float16>) {
      // Not finite times 0 is NaN, and stays one.
      const auto zeros = hn::Mul(hn::Zero(d), a);
      return hn::AllFalse(d, hn::IsNaN(hn::MulAdd(hn::Zero(d), b, zeros)));
    }
  }
  return true;
}

/// The step of RunPass: twice as many elements as a vector computes with. False, and nothing is
/// written: their averages are not finite.
template <class Op, std::size_t kCount, typename In, typename Out>
HWY_INLINE bool ReduceTwoVectors(const In* const* in, std::size_t i,
                                 absl::Span<void* const> outputs, std::size_t out_i,
                                 const Scale& scale, bool streaming) {
  const ComputeTag<In> d;
  const StoredTag<Out, ComputeTag<In>> ds;
  const std::size_t lanes = hn::Lanes(d);
  auto v0 = CombineLeaves<Op, kCount>(d, LoadAll(), in, i);
  auto v1 = CombineLeaves<Op, kCount>(d, LoadAll(), in, i + lanes);
  if (IsScaled<Op>(d, scale) && !ScaleTo<In>(d, scale, v0, v1)) return false;
  const auto rounded0 = RoundLanes<Out>(d, v0);
  const auto rounded1 = RoundLanes<Out>(d, v1);
  for (void* output : outputs) {
    Out* const to = static_cast<Out*>(output) + out_i;
    StoreLanes(ds, rounded0, streaming, to);
    StoreLanes(ds, rounded1, streaming, to + lanes);
  }
  return true;
}

#if HWY_TARGET != HWY_SCALAR

/// ReduceTwoVectors from bfloat16 to bfloat16.
template <class Op, std::size_t kCount>
HWY_INLINE bool ReduceEvenAndOdd(const BFloat16* const* in, std::size_t i,
                                 absl::Span<void* const> outputs, std::size_t out_i,
                                 const Scale& scale, bool streaming) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<std::uint32_t> du;
  const hn::ScalableTag<std::uint16_t> d16;
  auto even = CombineLeaves<Op, kCount>(d, LoadEven(), in, i);
  auto odd = CombineLeaves<Op, kCount>(d, LoadOdd(), in, i);
  if (IsScaled<Op>(d, scale) && !ScaleTo<BFloat16>(d, scale, even, odd)) return false;
  const auto low = hn::ShiftRight<16>(RoundToBFloat16(d, even));
  const auto high = hn::And(RoundToBFloat16(d, odd), hn::Set(du, 0xFFFF0000u));
  const auto both = hn::BitCast(d16, hn::Or(low, high));
  for (void* output : outputs) {
    StoreLanes(d16, both, streaming, static_cast<BFloat16*>(output) + out_i);
  }
  return true;
}

#endif

/// Runs the elements from `begin` on, fewer than a vector holds, through buffers of a vector each:
/// the inputs may not be read past their end, nor again where they were written in place. Returns
/// how many elements of the pass are done.
inline std::size_t RunTail(std::size_t (*run)(const Pass&), const Pass& pass, std::size_t begin,
                           std::size_t lanes, std::size_t in_size, std::size_t out_size) {
  alignas(kStreamAlignment) unsigned char gathered[kMaxLeaves][HWY_MAX_BYTES] = {};
  alignas(kStreamAlignment) unsigned char result[HWY_MAX_BYTES];
  const void* inputs[kMaxLeaves];
  void* const outputs[] = {result};
  const std::size_t count = pass.count - begin;
  for (std::size_t k = 0; k < pass.inputs.size(); ++k) {
    const auto* const in = static_cast<const unsigned char*>(pass.inputs[k]);
    std::memcpy(gathered[k], in + (pass.in_begin + begin) * in_size, count * in_size);
    inputs[k] = gathered[k];
  }
  const std::size_t done = run({.inputs = {inputs, pass.inputs.size()},
                                .outputs = outputs,
                                .count = lanes,
                                .scale = pass.scale});
  if (done < lanes) return begin;
  for (void* output : pass.outputs) {
    auto* const out = static_cast<unsigned char*>(output);
    std::memcpy(out + (pass.out_begin + begin) * out_size, result, count * out_size);
  }
  return pass.count;
}

/// Returns how many elements are done: all, unless an average is not finite.
template <class Op, std::size_t kCount, typename In, typename Out>
std::size_t RunPass(const Pass& pass) {
  const ComputeTag<In> d;
  const StoredTag<Out, ComputeTag<In>> ds;
  const std::size_t lanes = hn::Lanes(d);
  // By value, because the compiler cannot know that the stores below leave the pass alone.
  const absl::Span<void* const> outputs = pass.outputs;
  const std::size_t out_begin = pass.out_begin, count = pass.count;
  const Scale scale = pass.scale;
  const bool streaming = pass.streaming;
  const In* in[kCount];
  for (std::size_t k = 0; k < kCount; ++k) {
    in[k] = static_cast<const In*>(pass.inputs[k]) + pass.in_begin;
  }
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
#if HWY_TARGET != HWY_SCALAR
    if constexpr (std::is_same_v<In, BFloat16> && std::is_same_v<Out, BFloat16>) {
      if (!ReduceEvenAndOdd<Op, kCount>(in, i, outputs, out_begin + i, scale, streaming)) return i;
      continue;
    }
#endif
    if (!ReduceTwoVectors<Op, kCount, In, Out>(in, i, outputs, out_begin + i, scale, streaming))
      return i;
  }
  for (; i + lanes <= count; i += lanes) {
    auto v = CombineLeaves<Op, kCount>(d, LoadAll(), in, i);
    auto same = v;
    if (IsScaled<Op>(d, scale) && !ScaleTo<In>(d, scale, v, same)) return i;
    const auto rounded = RoundLanes<Out>(d, v);
    for (void* output : outputs) {
      StoreLanes(ds, rounded, /*streaming=*/false, static_cast<Out*>(output) + out_begin + i);
    }
  }
  if (i == count) return count;
  return RunTail(&RunPass<Op, kCount, In, Out>, pass, i, lanes, sizeof(In), sizeof(Out));
}

/// Whether RunLeaves has loops for `count` inputs. Sums have them for all up to eight, the other
/// operations for powers of two: each loop is compiled for every type and every target.
template <class Op>
constexpr bool FitsRegisters(std::size_t count) {
  return count <= kMaxLeaves && (std::is_same_v<Op, SumOp> || std::has_single_bit(count));
}

/// RunPass for a number of inputs that FitsRegisters.
template <class Op, typename In, typename Out>
std::size_t RunLeaves(const Pass& pass) {
  if constexpr (std::is_same_v<Op, SumOp>) {
    switch (pass.inputs.size()) {
      case 3:
        return RunPass<Op, 3, In, Out>(pass);
      case 5:
        return RunPass<Op, 5, In, Out>(pass);
      case 6:
        return RunPass<Op, 6, In, Out>(pass);
      case 7:
        return RunPass<Op, 7, In, Out>(pass);
      default:
        break;
    }
  }
  switch (pass.inputs.size()) {
    case 1:
      return RunPass<SumOp, 1, In, Out>(pass);
    case 2:
      return RunPass<Op, 2, In, Out>(pass);
    case 4:
      return RunPass<Op, 4, In, Out>(pass);
    default:
      return RunPass<Op, 8, In, Out>(pass);
  }
}

// ---- More inputs than registers hold: block by block, small enough for the first-level cache
// with one block per level of the tree.

inline constexpr std::size_t kBlockBytes = 2048;

template <typename T>
inline constexpr std::size_t kBlock = kBlockBytes / sizeof(typename Format<T>::Compute);

/// The unrounded tree over inputs[*][begin..begin + count), all times `factor`, into `result`;
/// count <= kBlock<T>.
template <class Op, typename T>
void ReduceBlock(absl::Span<const void* const> inputs, std::size_t begin, std::size_t count,
                 typename Format<T>::Compute* result, typename Format<T>::Compute factor = 1) {
  using Compute = typename Format<T>::Compute;
  void* const outputs[] = {result};
  const bool scaled = factor != 1;
  if (scaled ? inputs.size() == 1 : FitsRegisters<Op>(inputs.size())) {
    RunLeaves<Op, T, Compute>(
        {.inputs = inputs, .in_begin = begin, .outputs = outputs, .count = count});
    for (std::size_t k = 0; scaled && k < count; ++k) result[k] *= factor;
    return;
  }
  alignas(kStreamAlignment) Compute right[kBlock<T>];
  const std::size_t left_leaves = LeftLeaves(inputs.size());
  ReduceBlock<Op, T>(inputs.first(left_leaves), begin, count, result, factor);
  ReduceBlock<Op, T>(inputs.subspan(left_leaves), begin, count, right, factor);
  const void* const halves[] = {result, right};
  RunPass<Op, 2, Compute, Compute>({.inputs = halves, .outputs = outputs, .count = count});
}

template <class Op, typename T>
void ReduceBlocks(const Pass& pass) {
  using Compute = typename Format<T>::Compute;
  alignas(kStreamAlignment) Compute left[kBlock<T>], right[kBlock<T>];
  const void* const halves[] = {left, right};
  const std::size_t left_leaves = LeftLeaves(pass.inputs.size());
  for (std::size_t i = 0; i < pass.count; i += kBlock<T>) {
    const std::size_t count = HWY_MIN(kBlock<T>, pass.count - i);
    ReduceBlock<Op, T>(pass.inputs.first(left_leaves), pass.in_begin + i, count, left);
    ReduceBlock<Op, T>(pass.inputs.subspan(left_leaves), pass.in_begin + i, count, right);
    RunPass<Op, 2, Compute, T>({.inputs = halves,
                                .outputs = pass.outputs,
                                .out_begin = pass.out_begin + i,
                                .count = count,
                                .streaming = pass.streaming});
  }
}

template <class Op, typename T>
void RunAnyCount(const Pass& pass) {
  if (FitsRegisters<Op>(pass.inputs.size())) {
    RunLeaves<Op, T, T>(pass);
  } else {
    ReduceBlocks<Op, T>(pass);
  }
}

// ---- Averages, block by block: outputs may be inputs, which nobody writes to before a block's
// averages are known to be right.

/// Averages of inputs[*][begin..begin + count) into `result`; count <= kBlock<T>.
template <typename T>
void AverageIntegers(absl::Span<const void* const> inputs, std::size_t begin, std::size_t count,
                     T* result) {
  ExactSum<T> sums[kBlock<T>] = {};
  for (const void* input : inputs) {
    const T* const in = static_cast<const T*>(input) + begin;
    for (std::size_t k = 0; k < count; ++k) sums[k].Add(in[k]);
  }
  const auto world_size = static_cast<int>(inputs.size());
  for (std::size_t k = 0; k < count; ++k) result[k] = sums[k].Average(world_size);
}

template <typename T>
void AverageFloats(absl::Span<const void* const> inputs, std::size_t begin, std::size_t count,
                   typename Format<T>::Compute* result) {
  using Compute = typename Format<T>::Compute;
  ReduceBlock<SumOp, T>(inputs, begin, count, result);
  const void* const sums[] = {result};
  void* const averages[] = {result};
  const std::size_t done =
      RunPass<SumOp, 1, Compute, Compute>({.inputs = sums,
                                           .outputs = averages,
                                           .count = count,
                                           .scale = ScaleForAverage(inputs.size())});
  if (done == count) return;
  for (std::size_t k = done; k < count; ++k) result[k] /= static_cast<Compute>(inputs.size());
  // The largest float16 are small numbers in float32.
  if constexpr (!std::is_same_v<T, Float16>) {
    const auto scale = DownscaleFor<Compute>(static_cast<int>(inputs.size()));
    alignas(kStreamAlignment) Compute downscaled[kBlock<T>];
    ReduceBlock<SumOp, T>(inputs, begin, count, downscaled, scale.factor);
    for (std::size_t k = done; k < count; ++k) {
      if (!IsFinite(result[k])) result[k] = AverageOfDownscaled(downscaled[k], scale);
    }
  }
}

/// The averages of pass.count elements, kBlock<T> at most.
template <typename T>
void AverageBlock(const Pass& pass) {
  using Compute = typename Format<T>::Compute;
  alignas(kStreamAlignment) Compute averages[kBlock<T>];
  const void* const blocks[] = {averages};
  if constexpr (std::is_integral_v<T>) {
    AverageIntegers(pass.inputs, pass.in_begin, pass.count, averages);
  } else {
    AverageFloats<T>(pass.inputs, pass.in_begin, pass.count, averages);
  }
  RunPass<SumOp, 1, Compute, T>({.inputs = blocks,
                                 .outputs = pass.outputs,
                                 .out_begin = pass.out_begin,
                                 .count = pass.count,
                                 .streaming = pass.streaming});
}

/// In registers as far as that goes; block by block where there are more inputs than registers
/// hold, of integers, and where a sum is not finite although its average may be.
template <typename T>
void RunAverage(Pass pass) {
  const std::size_t end = pass.in_begin + pass.count;
  const auto advance = [&](std::size_t done) {
    pass.in_begin += done;
    pass.out_begin += done;
    pass.count = end - pass.in_begin;
  };
  while (pass.count > 0) {
    if constexpr (!std::is_integral_v<T>) {
      if (FitsRegisters<SumOp>(pass.inputs.size())) {
        pass.scale = ScaleForAverage(pass.inputs.size());
        advance(RunLeaves<SumOp, T, T>(pass));
        if (pass.count == 0) return;
      }
    }
    pass.count = HWY_MIN(kBlock<T>, pass.count);
    AverageBlock<T>(pass);
    advance(pass.count);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lockstep::internal
HWY_AFTER_NAMESPACE();

#endif  // LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
