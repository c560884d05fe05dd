// The vector loops behind ReduceTree, compiled once per Highway target: include it only from a
// source that foreach_target.h includes again and again. Vectors are never kept in arrays or
// structs, because those of Arm's SVE have no size at compile time.
#if defined(LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#undef LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#else
#define LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "absl/types/span.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "lockstep/runtime/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::internal {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// How elements of type T lie in memory, and in which type they are combined.
template <typename T>
struct Format {
  using Stored = T;
  using Compute = T;
};
template <>
struct Format<Float16> {
  using Stored = std::uint16_t;
  using Compute = float;
};
template <>
struct Format<BFloat16> {
  using Stored = std::uint16_t;
  using Compute = float;
};

template <typename T>
using ComputeTag = hn::ScalableTag<typename Format<T>::Compute>;
/// The tag of as many elements of T in memory as D has lanes.
template <typename T, class D>
using StoredTag = hn::Rebind<typename Format<T>::Stored, D>;

// ---- 16-bit floats. Highway's own conversions truncate to bfloat16, and those to float16 differ
// between targets in rounding and in subnormals, except where the hardware does them.

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)

template <class D, class V16>
HWY_INLINE hn::Vec<D> FromFloat16(D d, V16 stored) {
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), stored));
}

template <class D>
HWY_INLINE hn::Vec<StoredTag<Float16, D>> ToFloat16(D d, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto canonical = hn::BitCast(d, hn::Set(du, 0x7FC00000u));
  const auto rounded =
      hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), hn::IfThenElse(hn::IsNaN(v), canonical, v));
  return hn::BitCast(StoredTag<Float16, D>(), rounded);
}

#else

template <class D, class V16>
HWY_INLINE hn::Vec<D> FromFloat16(D d, V16 stored) {
  const hn::RebindToSigned<D> di;
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(di, hn::PromoteTo(du, stored));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(di, 0x8000)));
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFF));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  const auto normal = hn::Add(shifted, hn::Set(di, 0x38000000));
  const auto special = hn::Or(shifted, hn::Set(di, 0x7F800000));
  const auto scaled = hn::Mul(hn::ConvertTo(d, magnitude), hn::Set(d, 0x1p-24f));
  auto result =
      hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x400)), hn::BitCast(di, scaled), normal);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x7BFF)), special, result);
  return hn::BitCast(d, hn::Or(result, sign));
}

// The same steps as Float16::FromFloat, where they are explained.
template <class D>
HWY_INLINE hn::Vec<StoredTag<Float16, D>> ToFloat16(D d, hn::Vec<D> v) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, v);
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 0x8000));
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 1));
  const auto rebased = hn::Sub(magnitude, hn::Set(di, 0x38000000 - 0x0FFF));
  const auto normal = hn::ShiftRight<13>(hn::Add(rebased, odd));
  const auto shifted = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f));
  const auto subnormal = hn::Sub(hn::BitCast(di, shifted), hn::Set(di, 0x3F000000));
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x38800000)), subnormal, normal);
  const auto overflows = hn::Gt(magnitude, hn::Set(di, 0x477FEFFF));
  result = hn::Or(hn::IfThenElse(overflows, hn::Set(di, 0x7C00), result), sign);
  const auto is_nan = hn::Gt(magnitude, hn::Set(di, 0x7F800000));
  result = hn::IfThenElse(is_nan, hn::Set(di, 0x7E00), result);
  return hn::DemoteTo(StoredTag<Float16, D>(), result);
}

#endif

template <class D, class V16>
HWY_INLINE hn::Vec<D> FromBFloat16(D d, V16 stored) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, stored)));
}

template <class D>
HWY_INLINE hn::Vec<StoredTag<BFloat16, D>> ToBFloat16(D, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(v));
  const auto result = hn::IfThenElse(is_nan, hn::Set(du, 0x7FC0u), rounded);
  return hn::DemoteTo(StoredTag<BFloat16, D>(), hn::BitCast(di, result));
}

// ---- Between memory and lanes.

template <typename T, class D>
HWY_INLINE hn::Vec<D> LoadLanes(D d, const T* from) {
  using Stored = typename Format<T>::Stored;
  const auto stored = hn::LoadU(StoredTag<T, D>(), reinterpret_cast<const Stored*>(from));
  if constexpr (std::is_same_v<T, Float16>) {
    return FromFloat16(d, stored);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return FromBFloat16(d, stored);
  } else {
    return stored;
  }
}

/// What is to be stored for `v`: rounded, with the type's canonical quiet NaN.
template <typename T, class D>
HWY_INLINE hn::Vec<StoredTag<T, D>> RoundLanes(D d, hn::Vec<D> v) {
  if constexpr (std::is_same_v<T, Float16>) {
    return ToFloat16(d, v);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return ToBFloat16(d, v);
  } else if constexpr (std::is_floating_point_v<T>) {
    const hn::RebindToUnsigned<D> du;
    using Bits = hn::TFromD<decltype(du)>;
    constexpr Bits kCanonical =
        sizeof(T) == 4 ? Bits{0x7FC00000u} : static_cast<Bits>(0x7FF8000000000000u);
    return hn::IfThenElse(hn::IsNaN(v), hn::BitCast(d, hn::Set(du, kCanonical)), v);
  } else {
    return v;
  }
}

template <typename T, class DS>
HWY_INLINE void StoreLanes(DS ds, hn::Vec<DS> v, bool streaming, T* to) {
  const auto stored = reinterpret_cast<hn::TFromD<DS>*>(to);
  // Highway streams no less than 16 bytes at a time.
  if constexpr (hn::MaxLanes(DS()) * sizeof(T) >= HWY_STREAM_MULTIPLE) {
    if (streaming) return hn::Stream(v, ds, stored);
  }
  hn::StoreU(v, ds, stored);
}

// ---- The operations on two vectors. Integers are summed and multiplied as unsigned.

struct SumOp {
  template <class D>
  static HWY_INLINE hn::Vec<D> Combine(D, hn::Vec<D> a, hn::Vec<D> b) {
    return hn::Add(a, b);
  }
};

struct ProductOp {
  template <class D>
  static HWY_INLINE hn::Vec<D> Combine(D, hn::Vec<D> a, hn::Vec<D> b) {
    return hn::Mul(a, b);
  }
};

// Highway leaves NaN and the order of zeros to the target, so both are spelt out: equal floats
// differ at most in the sign of zero, and a comparison with NaN is false.
struct MinOp {
  template <class D>
  static HWY_INLINE hn::Vec<D> Combine(D, hn::Vec<D> a, hn::Vec<D> b) {
    if constexpr (std::is_floating_point_v<hn::TFromD<D>>) {
      const auto lesser = hn::IfThenElse(hn::Lt(b, a), b, a);
      const auto signed_zero = hn::IfThenElse(hn::Eq(a, b), hn::Or(a, b), lesser);
      return hn::IfThenElse(hn::IsNaN(b), b, signed_zero);
    } else {
      return hn::Min(a, b);
    }
  }
};

struct MaxOp {
  template <class D>
  static HWY_INLINE hn::Vec<D> Combine(D, hn::Vec<D> a, hn::Vec<D> b) {
    if constexpr (std::is_floating_point_v<hn::TFromD<D>>) {
      const auto greater = hn::IfThenElse(hn::Gt(b, a), b, a);
      const auto signed_zero = hn::IfThenElse(hn::Eq(a, b), hn::And(a, b), greater);
      return hn::IfThenElse(hn::IsNaN(b), b, signed_zero);
    } else {
      return hn::Max(a, b);
    }
  }
};

// ---- One pass over memory, with up to eight inputs in registers.

inline constexpr std::size_t kMaxLeaves = 8;

/// A cache line, so that each line is written as a whole. No vector that streams is wider.
inline constexpr std::size_t kStreamAlignment = 64;

/// outputs[*][out_begin + i] = tree over inputs[0..][in_begin + i], for i in [0, count).
struct Pass {
  absl::Span<const void* const> inputs;
  std::size_t in_begin = 0;
  absl::Span<void* const> outputs;
  std::size_t out_begin = 0;
  std::size_t count = 0;
  /// The result is divided by it, unless it is 0. Floating types only.
  std::size_t divisor = 0;
  /// Requires &outputs[*][out_begin] to be aligned to kStreamAlignment.
  bool streaming = false;
};

/// Where the tree over `count` leaves splits: the largest power of two below it.
constexpr std::size_t LeftLeaves(std::size_t count) { return std::bit_floor(count - 1); }

template <class Op, std::size_t kCount, typename T, class D>
HWY_INLINE hn::Vec<D> CombineLeaves(D d, const T* const* inputs, std::size_t i) {
  if constexpr (kCount == 1) {
    return LoadLanes(d, inputs[0] + i);
  } else {
    constexpr std::size_t kLeft = LeftLeaves(kCount);
    const auto left = CombineLeaves<Op, kLeft>(d, inputs, i);
    const auto right = CombineLeaves<Op, kCount - kLeft>(d, inputs + kLeft, i);
    return Op::Combine(d, left, right);
  }
}

template <class Op, std::size_t kCount, typename Out, typename In, class D>
HWY_INLINE hn::Vec<StoredTag<Out, D>> ReduceVector(D d, const In* const* inputs, std::size_t i,
                                                   std::size_t divisor) {
  auto v = CombineLeaves<Op, kCount>(d, inputs, i);
  if constexpr (std::is_floating_point_v<hn::TFromD<D>>) {
    if (divisor != 0) v = hn::Div(v, hn::Set(d, static_cast<hn::TFromD<D>>(divisor)));
  }
  return RoundLanes<Out>(d, v);
}

/// Runs the elements from `begin` on, fewer than a vector holds, through buffers of a vector each:
/// the inputs may not be read past their end, nor again where they were written in place.
inline void RunTail(void (*run)(const Pass&), const Pass& pass, std::size_t begin,
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
  run({.inputs = {inputs, pass.inputs.size()},
       .outputs = outputs,
       .count = lanes,
       .divisor = pass.divisor});
  for (void* output : pass.outputs) {
    auto* const out = static_cast<unsigned char*>(output);
    std::memcpy(out + (pass.out_begin + begin) * out_size, result, count * out_size);
  }
}

template <class Op, std::size_t kCount, typename In, typename Out>
void RunPass(const Pass& pass) {
  const ComputeTag<In> d;
  const StoredTag<Out, ComputeTag<In>> ds;
  const std::size_t lanes = hn::Lanes(d);
  // By value, because the compiler cannot know that the stores below leave the pass alone.
  const absl::Span<void* const> outputs = pass.outputs;
  const std::size_t out_begin = pass.out_begin, count = pass.count, divisor = pass.divisor;
  const bool streaming = pass.streaming;
  const In* in[kCount];
  for (std::size_t k = 0; k < kCount; ++k) {
    in[k] = static_cast<const In*>(pass.inputs[k]) + pass.in_begin;
  }
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto v0 = ReduceVector<Op, kCount, Out>(d, in, i, divisor);
    const auto v1 = ReduceVector<Op, kCount, Out>(d, in, i + lanes, divisor);
    const auto v2 = ReduceVector<Op, kCount, Out>(d, in, i + 2 * lanes, divisor);
    const auto v3 = ReduceVector<Op, kCount, Out>(d, in, i + 3 * lanes, divisor);
    for (void* output : outputs) {
      Out* const to = static_cast<Out*>(output) + out_begin + i;
      StoreLanes(ds, v0, streaming, to);
      StoreLanes(ds, v1, streaming, to + lanes);
      StoreLanes(ds, v2, streaming, to + 2 * lanes);
      StoreLanes(ds, v3, streaming, to + 3 * lanes);
    }
  }
  for (; i + lanes <= count; i += lanes) {
    const auto v = ReduceVector<Op, kCount, Out>(d, in, i, divisor);
    for (void* output : outputs) {
      StoreLanes(ds, v, /*streaming=*/false, static_cast<Out*>(output) + out_begin + i);
    }
  }
  if (i < count) {
    RunTail(&RunPass<Op, kCount, In, Out>, pass, i, lanes, sizeof(In), sizeof(Out));
  }
}

/// Whether RunLeaves has loops for `count` inputs. Sums have them for all up to eight, the other
/// operations for powers of two: each loop is compiled for every type and every target.
template <class Op>
constexpr bool FitsRegisters(std::size_t count) {
  return count <= kMaxLeaves && (std::is_same_v<Op, SumOp> || std::has_single_bit(count));
}

/// RunPass for a number of inputs that FitsRegisters.
template <class Op, typename In, typename Out>
void RunLeaves(const Pass& pass) {
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

/// The unrounded tree over inputs[*][begin..begin + count) into `result`; count <= kBlock<T>.
template <class Op, typename T>
void ReduceBlock(absl::Span<const void* const> inputs, std::size_t begin, std::size_t count,
                 typename Format<T>::Compute* result) {
  using Compute = typename Format<T>::Compute;
  void* const outputs[] = {result};
  if (FitsRegisters<Op>(inputs.size())) {
    return RunLeaves<Op, T, Compute>(
        {.inputs = inputs, .in_begin = begin, .outputs = outputs, .count = count});
  }
  alignas(kStreamAlignment) Compute right[kBlock<T>];
  const std::size_t left_leaves = LeftLeaves(inputs.size());
  ReduceBlock<Op, T>(inputs.first(left_leaves), begin, count, result);
  ReduceBlock<Op, T>(inputs.subspan(left_leaves), begin, count, right);
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
                                .divisor = pass.divisor,
                                .streaming = pass.streaming});
  }
}

template <class Op, typename T>
void RunAnyCount(const Pass& pass) {
  if (FitsRegisters<Op>(pass.inputs.size())) return RunLeaves<Op, T, T>(pass);
  ReduceBlocks<Op, T>(pass);
}

/// The average of integers: vector units do not divide them, so the sums of a block are divided
/// one by one.
template <typename T>
void AverageIntegers(const Pass& pass) {
  using Unsigned = std::make_unsigned_t<T>;
  alignas(kStreamAlignment) Unsigned block[kBlock<T>];
  const void* const blocks[] = {block};
  const auto divisor = static_cast<T>(pass.inputs.size());
  for (std::size_t i = 0; i < pass.count; i += kBlock<T>) {
    const std::size_t count = HWY_MIN(kBlock<T>, pass.count - i);
    ReduceBlock<SumOp, Unsigned>(pass.inputs, pass.in_begin + i, count, block);
    for (std::size_t k = 0; k < count; ++k) {
      block[k] = static_cast<Unsigned>(static_cast<T>(block[k]) / divisor);
    }
    RunPass<SumOp, 1, Unsigned, Unsigned>({.inputs = blocks,
                                           .outputs = pass.outputs,
                                           .out_begin = pass.out_begin + i,
                                           .count = count,
                                           .streaming = pass.streaming});
  }
}

// ---- NaN.

/// The magnitudes of the elements, as integers.
template <typename T, class DI>
HWY_INLINE hn::Vec<DI> LoadMagnitudes(DI di, const T* from) {
  using Stored = typename Format<T>::Stored;
  const auto stored = hn::LoadU(hn::Rebind<Stored, DI>(), reinterpret_cast<const Stored*>(from));
  return hn::And(hn::BitCast(di, stored), hn::Set(di, hwy::LimitsMax<hn::TFromD<DI>>()));
}

/// The first element whose magnitude, as an integer, is above `infinity`: a NaN. -1: none.
template <typename T>
std::int64_t FirstAbove(const T* data, std::size_t count, std::int64_t infinity) {
  using Bits = hwy::MakeSigned<typename Format<T>::Stored>;
  const hn::ScalableTag<Bits> di;
  const std::size_t lanes = hn::Lanes(di);
  const auto limit = hn::Set(di, static_cast<Bits>(infinity));
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto a = hn::Max(LoadMagnitudes(di, data + i), LoadMagnitudes(di, data + i + lanes));
    const auto b =
        hn::Max(LoadMagnitudes(di, data + i + 2 * lanes), LoadMagnitudes(di, data + i + 3 * lanes));
    if (!hn::AllFalse(di, hn::Gt(hn::Max(a, b), limit))) break;
  }
  T tail[hn::MaxLanes(hn::ScalableTag<Bits>())] = {};
  for (; i < count; i += lanes) {
    const T* from = data + i;
    if (count - i < lanes) {
      std::memcpy(tail, from, (count - i) * sizeof(T));
      from = tail;
    }
    const auto lane = hn::FindFirstTrue(di, hn::Gt(LoadMagnitudes(di, from), limit));
    if (lane >= 0) return static_cast<std::int64_t>(i) + lane;
  }
  return -1;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lockstep::internal
HWY_AFTER_NAMESPACE();

#endif  // LOCKSTEP_COLLECTIVE_REDUCE_TREE_INL_H_
