// Loading and storing tensor elements in kernels: 16-bit types are computed in float32.
#ifndef LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_
#define LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "lockstep/runtime/dtype.h"

namespace lockstep::internal::cuda {

template <typename T>
struct ComputeType {
  using type = T;
};
template <>
struct ComputeType<Float16> {
  using type = float;
};
template <>
struct ComputeType<BFloat16> {
  using type = float;
};
/// The type in which T is computed: float32 for the 16-bit ones, else itself.
template <typename T>
using Compute = typename ComputeType<T>::type;

template <typename T>
__device__ __forceinline__ Compute<T> Load(T element) {
  return element;
}
template <>
__device__ __forceinline__ float Load<Float16>(Float16 element) {
  return __half2float(__ushort_as_half(element.bits));
}
template <>
__device__ __forceinline__ float Load<BFloat16>(BFloat16 element) {
  return __uint_as_float(static_cast<unsigned>(element.bits) << 16);
}

/// Rounds to nearest even, as DType's conversions on the host do.
template <typename T, typename V>
struct Convert {
  static __device__ __forceinline__ T From(V value) { return static_cast<T>(value); }
};
template <typename V>
struct Convert<Float16, V> {
  static __device__ __forceinline__ Float16 From(V value) {
    return Float16{__half_as_ushort(__float2half_rn(static_cast<float>(value)))};
  }
};
template <typename V>
struct Convert<BFloat16, V> {
  static __device__ __forceinline__ BFloat16 From(V value) {
    return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value)))};
  }
};
template <typename T, typename V>
__device__ __forceinline__ void Store(T& element, V value) {
  element = Convert<T, V>::From(value);
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_
