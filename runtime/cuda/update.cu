#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/device_math.cuh"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/launch.cuh"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/update.h"

namespace lockstep::internal::cuda {
namespace {

constexpr int kThreads = 256;

// What `value` stands for: `master`, unless somebody has written another value since that was
// rounded to it.
template <typename T, typename Value>
__device__ __forceinline__ T MasterOf(T master, Value value) {
  if constexpr (std::is_arithmetic_v<Value>) {
    return master;
  } else {
    return As<Value>(master).bits == value.bits ? master : static_cast<T>(Load(value));
  }
}

// SgdOptions in the type of the state.
template <typename T>
struct Sgd {
  T learning_rate, momentum, weight_decay;
};

template <typename T, typename Value>
__global__ void __launch_bounds__(kThreads)
    SgdKernel(Sgd<T> by, std::int64_t size, const T* gradient, T* velocity, T* master,
              Value* value) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += step) {
    const T weight = MasterOf(master[i], value[i]);
    const T moving = by.momentum * velocity[i] + gradient[i] + by.weight_decay * weight;
    const T updated = weight - by.learning_rate * moving;
    velocity[i] = moving;
    master[i] = updated;
    Store(value[i], updated);
  }
}

// AdamWOptions in the type of the state, and what the step's number makes of them.
template <typename T>
struct AdamW {
  T learning_rate, beta1, rest1, beta2, rest2, epsilon, weight_decay, mean_weight, square_weight;
};

template <typename T, typename Value>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamW<T> by, std::int64_t size, const T* gradient, T* mean, T* mean_square,
                T* master, Value* value) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += step) {
    const T g = gradient[i];
    const T weight = MasterOf(master[i], value[i]);
    const T m = by.beta1 * mean[i] + by.rest1 * g;
    const T v = by.beta2 * mean_square[i] + by.rest2 * g * g;
    const T slope = m * by.mean_weight / (std::sqrt(v * by.square_weight) + by.epsilon);
    const T updated = weight - by.learning_rate * (slope + by.weight_decay * weight);
    mean[i] = m;
    mean_square[i] = v;
    master[i] = updated;
    Store(value[i], updated);
  }
}

// Returns visitor<T, Value>() for a master of type T, float32 or float64.
template <typename Visitor>
auto VisitUpdate(DType master, DType value, Visitor&& visitor) {
  return VisitFloating(value, [&]<typename Value>() {
    return master == DType::kFloat64 ? visitor.template operator()<double, Value>()
                                     : visitor.template operator()<float, Value>();
  });
}

}  // namespace

void LoadUpdateKernels(KernelLoader& loader) {
  for (const DType master : {DType::kFloat32, DType::kFloat64}) {
    for (const DType value : kAllDTypes) {
      VisitUpdate(master, value, [&]<typename T, typename Value>() {
        loader.Load(SgdKernel<T, Value>);
        loader.Load(AdamWKernel<T, Value>);
      });
    }
  }
}

absl::Status SgdUpdate(Worker& worker, const SgdOptions& options, const Tensor& gradient,
                       const Tensor& velocity, const Tensor& master, const Tensor& value) {
  const DeviceGuard guard(worker.device());
  const auto launch = [&]<typename T, typename Value>() {
    const Sgd<T> by{.learning_rate = static_cast<T>(options.learning_rate),
                    .momentum = static_cast<T>(options.momentum),
                    .weight_decay = static_cast<T>(options.weight_decay)};
    return Launch(SgdKernel<T, Value>, NumBlocks(master.size(), kThreads), kThreads,
                  StreamOf(worker), by, master.size(), Pointer<const T>(gradient),
                  Pointer<T>(velocity), Pointer<T>(master), Pointer<Value>(value));
  };
  return ToStatus(VisitUpdate(master.dtype(), value.dtype(), launch), "SgdKernel", worker.device());
}

absl::Status AdamWUpdate(Worker& worker, const AdamWOptions& options, std::int64_t step,
                         const Tensor& gradient, const Tensor& mean, const Tensor& mean_square,
                         const Tensor& master, const Tensor& value) {
  const DeviceGuard guard(worker.device());
  const auto launch = [&]<typename T, typename Value>() {
    const auto weight = [step](double beta) {
      return static_cast<T>(1 / (1 - std::pow(beta, static_cast<double>(step))));
    };
    const AdamW<T> by{.learning_rate = static_cast<T>(options.learning_rate),
                      .beta1 = static_cast<T>(options.beta1),
                      .rest1 = static_cast<T>(1 - options.beta1),
                      .beta2 = static_cast<T>(options.beta2),
                      .rest2 = static_cast<T>(1 - options.beta2),
                      .epsilon = static_cast<T>(options.epsilon),
                      .weight_decay = static_cast<T>(options.weight_decay),
                      .mean_weight = weight(options.beta1),
                      .square_weight = weight(options.beta2)};
    return Launch(AdamWKernel<T, Value>, NumBlocks(master.size(), kThreads), kThreads,
                  StreamOf(worker), by, master.size(), Pointer<const T>(gradient), Pointer<T>(mean),
                  Pointer<T>(mean_square), Pointer<T>(master), Pointer<Value>(value));
  };
  return ToStatus(VisitUpdate(master.dtype(), value.dtype(), launch), "AdamWKernel",
                  worker.device());
}

}  // namespace lockstep::internal::cuda
