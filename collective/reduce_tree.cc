#include "lockstep/collective/reduce_tree.h"

#include <cstddef>
#include <cstring>
#include <type_traits>

// Close to a neighbour each, and every target takes seconds to compile.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lockstep/collective/reduce_tree.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which decides what they are compiled for.
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "lockstep/collective/reduce_tree-inl.h"
#include "lockstep/runtime/float_mode.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::internal {
namespace HWY_NAMESPACE {

/// `Wraps` is T, unsigned if it is an integer.
template <typename T, typename Wraps = T>
void RunType(ReduceOp op, const Pass& pass) {
  switch (op) {
    case ReduceOp::kSum:
      return RunAnyCount<SumOp, Wraps>(pass);
    case ReduceOp::kAverage:
      return RunAverage<T>(pass);
    case ReduceOp::kProduct:
      return RunAnyCount<ProductOp, Wraps>(pass);
    case ReduceOp::kMin:
      return RunAnyCount<MinOp, T>(pass);
    case ReduceOp::kMax:
      return RunAnyCount<MaxOp, T>(pass);
  }
}

void Run(DType dtype, ReduceOp op, const Pass& pass) {
  if (pass.count == 0) return;
  switch (dtype) {
    case DType::kFloat32:
      return RunType<float>(op, pass);
    case DType::kFloat16:
      return RunType<Float16>(op, pass);
    case DType::kBFloat16:
      return RunType<BFloat16>(op, pass);
    case DType::kFloat64:
      return RunType<double>(op, pass);
    case DType::kInt32:
      return RunType<std::int32_t, std::uint32_t>(op, pass);
    case DType::kInt64:
      return RunType<std::int64_t, std::uint64_t>(op, pass);
  }
}

/// How many bytes every output is short of a multiple of kStreamAlignment; -1 where they differ.
std::ptrdiff_t BytesToAlignment(absl::Span<void* const> outputs) {
  const auto misalignment = [](const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % kStreamAlignment;
  };
  const std::uintptr_t first = misalignment(outputs[0]);
  for (const void* output : outputs) {
    if (misalignment(output) != first) return -1;
  }
  return static_cast<std::ptrdiff_t>((kStreamAlignment - first) % kStreamAlignment);
}

void ReduceTreeOnTarget(DType dtype, ReduceOp op, absl::Span<const void* const> inputs,
                        absl::Span<void* const> outputs, std::size_t count, bool streaming) {
  Pass pass{.inputs = inputs, .outputs = outputs, .count = count};
  const std::ptrdiff_t head_bytes = streaming ? BytesToAlignment(outputs) : -1;
  if (head_bytes < 0) return Run(dtype, op, pass);
  pass.count = HWY_MIN(count, static_cast<std::size_t>(head_bytes) / SizeOf(dtype));
  Run(dtype, op, pass);
  pass.in_begin = pass.out_begin = pass.count;
  pass.count = count - pass.count;
  pass.streaming = true;
  Run(dtype, op, pass);
  hwy::FlushStream();
}

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

std::int64_t FirstNanOnTarget(DType dtype, const void* data, std::size_t count) {
  switch (dtype) {
    case DType::kFloat32:
      return FirstAbove(static_cast<const float*>(data), count, 0x7F800000);
    case DType::kFloat16:
      return FirstAbove(static_cast<const Float16*>(data), count, 0x7C00);
    case DType::kBFloat16:
      return FirstAbove(static_cast<const BFloat16*>(data), count, 0x7F80);
    case DType::kFloat64:
      return FirstAbove(static_cast<const double*>(data), count, 0x7FF0000000000000);
    case DType::kInt32:
    case DType::kInt64:
      break;
  }
  return -1;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lockstep::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::internal {

HWY_EXPORT(ReduceTreeOnTarget);
HWY_EXPORT(FirstNanOnTarget);

void ReduceTree(DType dtype, ReduceOp op, absl::Span<const void* const> inputs,
                absl::Span<void* const> outputs, std::int64_t count, bool streaming) {
  if (count <= 0 || inputs.empty() || outputs.empty()) return;
  const DefaultFloatMode mode;  // the arithmetic is behind a pointer
  HWY_DYNAMIC_DISPATCH(ReduceTreeOnTarget)
  (dtype, op, inputs, outputs, static_cast<std::size_t>(count), streaming);
}

std::int64_t FirstNan(DType dtype, const void* data, std::int64_t count) {
  if (count <= 0) return -1;
  return HWY_DYNAMIC_DISPATCH(FirstNanOnTarget)(dtype, data, static_cast<std::size_t>(count));
}

}  // namespace lockstep::internal
#endif  // HWY_ONCE
