// Elements of every type as vectors to compute with: loading, rounding, storing and combining them
// with the same bits on every Highway target. Compiled once per target: include it only from a
// source that foreach_target.h includes again and again.
#if defined(LOCKSTEP_COLLECTIVE_REDUCE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_COLLECTIVE_REDUCE_LANES_INL_H_
#undef LOCKSTEP_COLLECTIVE_REDUCE_LANES_INL_H_
#else
#define LOCKSTEP_COLLECTIVE_REDUCE_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

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

// The same steps as Float16::FromFloat, where they are explained, but that the adder rounds
// subnormals: 0.5's unit in the last place is 2^-24, the smallest float16.
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

/// The bits of `v`, rounded so that the upper half is the bfloat16.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> RoundToBFloat16(D, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd);
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(v));
  return hn::IfThenElse(is_nan, hn::Set(du, 0x7FC00000u), rounded);
}

template <class D>
HWY_INLINE hn::Vec<StoredTag<BFloat16, D>> ToBFloat16(D d, hn::Vec<D> v) {
  const hn::RebindToSigned<D> di;
  const auto upper = hn::ShiftRight<16>(RoundToBFloat16(d, v));
  return hn::DemoteTo(StoredTag<BFloat16, D>(), hn::BitCast(di, upper));
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

struct LoadAll {
  template <class D, typename T>
  HWY_INLINE hn::Vec<D> operator()(D d, const T* from) const {
    return LoadLanes(d, from);
  }
};

#if HWY_TARGET != HWY_SCALAR

// Every other one of 2 * Lanes(d) bfloat16: masks and shifts where LoadAll has to move elements
// between lanes, which few execution units can.
struct LoadEven {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const BFloat16* from) const {
    const hn::RebindToUnsigned<D> du;
    const hn::Repartition<std::uint16_t, D> d16;
    const auto both = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(du, both)));
  }
};

struct LoadOdd {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, const BFloat16* from) const {
    const hn::RebindToUnsigned<D> du;
    const hn::Repartition<std::uint16_t, D> d16;
    const auto both = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from));
    return hn::BitCast(d, hn::And(hn::BitCast(du, both), hn::Set(du, 0xFFFF0000u)));
  }
};

#endif

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

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lockstep::internal
HWY_AFTER_NAMESPACE();

#endif  // LOCKSTEP_COLLECTIVE_REDUCE_LANES_INL_H_
