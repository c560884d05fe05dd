// Loading and storing tensor elements in kernels: 16-bit types are computed in float32.
#ifndef LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_
#define LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "lockstep/runtime/dtype.h"

namespace lockstep::internal::cuda {

/// The type in which T is computed: float32 for the 16-bit ones, else itself.
template <typename T>
using Compute = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

template <typename T>
__device__ __forceinline__ Compute<T> Load(T element) {
  if constexpr (std::is_same_v<T, Float16>) {
    return __half2float(__ushort_as_half(element.bits));
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float(static_cast<unsigned>(element.bits) << 16);
  } else {
    return element;
  }
}

/// Rounds to nearest even, as DType's conversions on the host do.
template <typename T, typename V>
__device__ __forceinline__ T As(V value) {
  if constexpr (std::is_same_v<T, Float16>) {
    return Float16{__half_as_ushort(__float2half_rn(static_cast<float>(value)))};
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value)))};
  } else {
    return static_cast<T>(value);
  }
}
template <typename T, typename V>
__device__ __forceinline__ void Store(T& element, V value) {
  element = As<T>(value);
}

/// What moves without being looked at needs one kernel for each size, not for each type.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_DEVICE_MATH_CUH_
