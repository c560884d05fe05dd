#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep::internal::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxAxes = 8;
constexpr std::int64_t kMaxNarrow = std::numeric_limits<std::uint32_t>::max();

// The shape that N tensors have in common and the strides of each, outermost axis first.
template <int N>
struct Layout {
  std::int64_t size = 1;
  int num_axes = 0;
  std::int64_t extents[kMaxAxes];
  std::int64_t strides[N][kMaxAxes];
};

// Axes are joined where memory allows, so that contiguous tensors of any shape have one.
template <std::size_t N>
absl::StatusOr<Layout<N>> MakeLayout(const Shape& shape,
                                     const std::array<const Shape*, N>& strides) {
  Layout<N> layout;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 1) continue;
    int last = layout.num_axes - 1;
    bool joins = last >= 0;
    for (std::size_t n = 0; joins && n < N; ++n)
      joins = layout.strides[n][last] == (*strides[n])[axis] * shape[axis];
    if (!joins) {
      if (layout.num_axes == kMaxAxes) {
        return absl::InvalidArgumentError(absl::StrCat("elementwise: a strided tensor of shape ",
                                                       ToString(shape), "; a GPU takes up to ",
                                                       kMaxAxes, " axes"));
      }
      last = layout.num_axes++;
      layout.extents[last] = 1;
    }
    layout.size *= shape[axis];
    layout.extents[last] *= shape[axis];
    for (std::size_t n = 0; n < N; ++n) layout.strides[n][last] = (*strides[n])[axis];
  }
  if (layout.num_axes == 0) {
    layout.num_axes = 1;
    layout.extents[0] = 1;
    for (auto& stride : layout.strides) stride[0] = 1;
  }
  return layout;
}

// Counts in packs of `count` neighbours from now on, or returns false where some are torn apart.
template <int N>
bool Pack(Layout<N>& layout, int count) {
  const int inner = layout.num_axes - 1;
  if (layout.extents[inner] % count != 0) return false;
  for (const auto& strides : layout.strides) {
    if (strides[inner] != 1) return false;
    for (int axis = 0; axis < inner; ++axis) {
      if (strides[axis] % count != 0) return false;
    }
  }
  layout.size /= count;
  layout.extents[inner] /= count;
  for (auto& strides : layout.strides) {
    for (int axis = 0; axis < inner; ++axis) strides[axis] /= count;
  }
  return true;
}

// Neighbours that move in one access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Packed {
  T at[kCount];
};

template <int N>
__device__ __forceinline__ void FindOffsets(const Layout<N>& layout, std::int64_t index,
                                            std::int64_t (&at)[N]) {
  // 64-bit division takes several times as long.
  const bool narrow = layout.size <= kMaxNarrow;
#pragma unroll
  for (int n = 0; n < N; ++n) at[n] = 0;
  for (int axis = layout.num_axes - 1; axis > 0; --axis) {
    const std::int64_t extent = layout.extents[axis];
    const std::int64_t outer =
        narrow ? static_cast<std::uint32_t>(index) / static_cast<std::uint32_t>(extent)
               : index / extent;
    const std::int64_t inner = index - outer * extent;
#pragma unroll
    for (int n = 0; n < N; ++n) at[n] += inner * layout.strides[n][axis];
    index = outer;
  }
#pragma unroll
  for (int n = 0; n < N; ++n) at[n] += index * layout.strides[n][0];
}

template <int kCount, typename Op, typename Out, typename... In>
__device__ __forceinline__ void Apply(Op op, Packed<Out, kCount>& out, Packed<In, kCount>... in) {
  Packed<Out, kCount> results;
#pragma unroll
  for (int i = 0; i < kCount; ++i) results.at[i] = op(in.at[i]...);
  out = results;
}

template <int kCount, typename Op, typename Out, typename... In, std::size_t... kInput>
__device__ __forceinline__ void ApplyAt(Op op, std::index_sequence<kInput...>,
                                        const std::int64_t (&at)[1 + sizeof...(In)],
                                        Packed<Out, kCount>* out, const Packed<In, kCount>*... in) {
  Apply<kCount>(op, out[at[0]], in[at[1 + kInput]]...);
}

// out = op(in...), element by element.
template <int kCount, typename Op, typename Out, typename... In>
__global__ void __launch_bounds__(kThreads)
    ElementwiseKernel(Op op, Layout<1 + sizeof...(In)> layout, Packed<Out, kCount>* out,
                      const Packed<In, kCount>*... in) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < layout.size;
       i += step) {
    std::int64_t at[1 + sizeof...(In)];
    FindOffsets(layout, i, at);
    ApplyAt<kCount>(op, std::make_index_sequence<sizeof...(In)>(), at, out, in...);
  }
}

// As many as the widest of the types has in 16 bytes.
template <typename... T>
constexpr int kPackCount = static_cast<int>(16 / std::max({sizeof(T)...}));

template <int kCount, typename T>
bool IsAligned(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignof(Packed<T, kCount>) == 0;
}

template <int kCount, typename Op, typename Out, typename... In>
cudaError_t LaunchElementwise(cudaStream_t stream, Op op, const Layout<1 + sizeof...(In)>& layout,
                              Out* out, const In*... in) {
  return Launch(ElementwiseKernel<kCount, Op, Out, In...>, NumBlocks(layout.size, kThreads),
                kThreads, stream, op, layout, reinterpret_cast<Packed<Out, kCount>*>(out),
                reinterpret_cast<const Packed<In, kCount>*>(in)...);
}

// `strides` are out's, then those of each input.
template <typename Op, typename Out, typename... In>
absl::Status Elementwise(Worker& worker, Op op, const Shape& shape,
                         const std::array<const Shape*, 1 + sizeof...(In)>& strides, Out* out,
                         const In*... in) {
  constexpr int kCount = kPackCount<Out, In...>;
  LOCKSTEP_ASSIGN_OR_RETURN(auto layout, MakeLayout(shape, strides));
  const DeviceGuard guard(worker.device());
  const bool packed =
      IsAligned<kCount>(out) && (true && ... && IsAligned<kCount>(in)) && Pack(layout, kCount);
  return LOCKSTEP_CUDA_STATUS(
      worker.device(), packed ? LaunchElementwise<kCount>(StreamOf(worker), op, layout, out, in...)
                              : LaunchElementwise<1>(StreamOf(worker), op, layout, out, in...));
}

template <typename Op, typename Out, typename... In>
void LoadElementwise(KernelLoader& loader) {
  loader.Load(ElementwiseKernel<1, Op, Out, In...>);
  loader.Load(ElementwiseKernel<kPackCount<Out, In...>, Op, Out, In...>);
}

template <typename T, typename Other>
using Moved = std::conditional_t<std::is_same_v<T, Other>, Bits<T>, T>;

template <typename T>
struct Value {
  T value;
  __device__ T operator()() const { return value; }
};
template <typename To, typename From>
struct Converted {
  __device__ To operator()(From x) const { return As<To>(Load(x)); }
};
template <typename T>
struct Added {
  __device__ T operator()(T x, T y) const { return As<T>(Load(x) + Load(y)); }
};

// x's density and distribution under the standard normal one: phi(x) and Phi(x).
template <typename V>
struct Normal {
  V density;
  V distribution;
};

template <typename V>
__device__ Normal<V> NormalAt(V x) {
  constexpr V kSqrtHalf = static_cast<V>(std::numbers::sqrt2 / 2);
  constexpr V kDensityAtZero = static_cast<V>(std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
  return {std::exp(V{-0.5} * x * x) * kDensityAtZero, V{0.5} * erfc(-x * kSqrtHalf)};
}

// Within 1e-5 of both, relative: enough for a result of 16 bits, in a third of the time, which no
// longer exceeds that of moving the element. Phi(-|x|) = t 2^p(t) 2^(-x^2 log2(e) / 2), where
// t = 1 / (1 + 0.2 sqrt(2) |x|), and p was fitted to that in Chebyshev nodes over |x| <= 14.
__device__ inline Normal<float> RoughNormalAt(float x) {
  constexpr float kDensityAtZero =
      static_cast<float>(std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
  constexpr float kHalfLog2E = static_cast<float>(std::numbers::log2e / 2);
  constexpr float kCoefficients[] = {0.3454040f,  -1.0846881f, 0.8755704f, -0.1131018f,
                                     0.69164890f, 1.4323529f,  -3.1471823f};
  const float t = __fdividef(1, fmaf(0.28284271f, fabsf(x), 1));
  float p = 0;
  for (const float coefficient : kCoefficients) p = fmaf(p, t, coefficient);
  const float tail = t * exp2f(fmaf(-kHalfLog2E * x, x, p));
  return {exp2f(-kHalfLog2E * x * x) * kDensityAtZero, x < 0 ? tail : 1 - tail};
}

template <typename T>
__device__ Normal<Compute<T>> NormalFor(Compute<T> x) {
  if constexpr (sizeof(T) == 2) {
    return RoughNormalAt(x);
  } else {
    return NormalAt(x);
  }
}

template <typename T, Activation kActivation>
struct Activated {
  __device__ T operator()(T element) const {
    using V = Compute<T>;
    const V x = Load(element);
    if constexpr (kActivation == Activation::kRelu) {
      // Written so that a NaN stays one.
      return As<T>(x < 0 ? V{0} : x);
    } else {
      return As<T>(x * NormalFor<T>(x).distribution);
    }
  }
};
template <typename T, Activation kActivation>
struct SlopeTimes {
  __device__ T operator()(T element, T above) const {
    using V = Compute<T>;
    const V x = Load(element);
    if constexpr (kActivation == Activation::kRelu) {
      return As<T>(x > 0 ? Load(above) : V{0});
    } else {
      const Normal<V> normal = NormalFor<T>(x);
      return As<T>((normal.distribution + x * normal.density) * Load(above));
    }
  }
};

// Returns visitor<T, activation>().
template <typename Visitor>
absl::Status VisitActivation(DType dtype, Activation activation, Visitor&& visitor) {
  return VisitFloating(dtype, [&]<typename T>() {
    return activation == Activation::kRelu ? visitor.template operator()<T, Activation::kRelu>()
                                           : visitor.template operator()<T, Activation::kGelu>();
  });
}

}  // namespace

void LoadElementwiseKernels(KernelLoader& loader) {
  for (const DType dtype : kAllDTypes) {
    VisitDType(dtype, [&]<typename T>() {
      LoadElementwise<Value<Bits<T>>, Bits<T>>(loader);
      for (const DType other : kAllDTypes) {
        VisitDType(other, [&]<typename Other>() {
          using From = Moved<T, Other>;
          using To = Moved<Other, T>;
          LoadElementwise<Converted<To, From>, To, From>(loader);
        });
      }
    });
    VisitFloating(dtype, [&]<typename T>() {
      LoadElementwise<Added<T>, T, T, T>(loader);
      LoadElementwise<Activated<T, Activation::kRelu>, T, T>(loader);
      LoadElementwise<Activated<T, Activation::kGelu>, T, T>(loader);
      LoadElementwise<SlopeTimes<T, Activation::kRelu>, T, T, T>(loader);
      LoadElementwise<SlopeTimes<T, Activation::kGelu>, T, T, T>(loader);
    });
  }
}

absl::Status Fill(Worker& worker, double value, const Tensor& out) {
  return VisitDType(out.dtype(), [&]<typename T>() -> absl::Status {
    T filled;
    internal::Store(filled, value);
    const Value<Bits<T>> op{std::bit_cast<Bits<T>>(filled)};
    return Elementwise(worker, op, out.shape(), {&out.strides()}, Pointer<Bits<T>>(out));
  });
}

absl::Status Copy(Worker& worker, const Tensor& in, const Tensor& out) {
  if (in.dtype() == out.dtype() && in.is_contiguous() && out.is_contiguous()) {
    if (in.raw_data() == out.raw_data()) return absl::OkStatus();
    const DeviceGuard guard(worker.device());
    return LOCKSTEP_CUDA_STATUS(
        worker.device(),
        cudaMemcpyAsync(out.raw_data(), in.raw_data(), static_cast<std::size_t>(in.size_bytes()),
                        cudaMemcpyDeviceToDevice, StreamOf(worker)));
  }
  return VisitDType(in.dtype(), [&]<typename T>() {
    return VisitDType(out.dtype(), [&]<typename Other>() -> absl::Status {
      using From = Moved<T, Other>;
      using To = Moved<Other, T>;
      return Elementwise(worker, Converted<To, From>(), in.shape(), {&out.strides(), &in.strides()},
                         Pointer<To>(out), Pointer<const From>(in));
    });
  });
}

absl::Status CopyAcross(Worker& worker, const Tensor& in, const Tensor& out) {
  const DeviceGuard guard(worker.device());
  // A copy of pageable memory waits inside the driver, with locks that the threads of other ranks
  // need, and what it waits for may need those ranks. So it finds nothing to wait for.
  LOCKSTEP_RETURN_IF_CUDA_ERROR(worker.device(), cudaStreamSynchronize(StreamOf(worker)));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      worker.device(),
      cudaMemcpyAsync(out.raw_data(), in.raw_data(), static_cast<std::size_t>(in.size_bytes()),
                      in.device().is_cpu() ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                      StreamOf(worker)));
  return LOCKSTEP_CUDA_STATUS(worker.device(), cudaStreamSynchronize(StreamOf(worker)));
}

absl::Status AddBias(Worker& worker, const Tensor& bias, const Tensor& x) {
  const Shape same_in_every_row = {0, 1};
  return VisitFloating(x.dtype(), [&]<typename T>() {
    return Elementwise(worker, Added<T>(), x.shape(),
                       {&x.strides(), &x.strides(), &same_in_every_row}, Pointer<T>(x),
                       Pointer<const T>(x), Pointer<const T>(bias));
  });
}

absl::Status Activate(Worker& worker, Activation activation, const Tensor& x, const Tensor& out) {
  return VisitActivation(x.dtype(), activation, [&]<typename T, Activation kActivation>() {
    return Elementwise(worker, Activated<T, kActivation>(), x.shape(),
                       {&out.strides(), &x.strides()}, Pointer<T>(out), Pointer<const T>(x));
  });
}

absl::Status ActivateBackward(Worker& worker, Activation activation, const Tensor& x,
                              const Tensor& grad_out, const Tensor& grad_in) {
  return VisitActivation(x.dtype(), activation, [&]<typename T, Activation kActivation>() {
    return Elementwise(worker, SlopeTimes<T, kActivation>(), x.shape(),
                       {&grad_in.strides(), &x.strides(), &grad_out.strides()}, Pointer<T>(grad_in),
                       Pointer<const T>(x), Pointer<const T>(grad_out));
  });
}

}  // namespace lockstep::internal::cuda
