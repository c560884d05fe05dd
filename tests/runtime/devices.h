// The devices that one test body runs over, and numbers on their way to and from one. For the main
// thread, like all that needs a worker of its own.
#ifndef LOCKSTEP_TESTS_RUNTIME_DEVICES_H_
#define LOCKSTEP_TESTS_RUNTIME_DEVICES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/worker.h"
#include "lockstep/tests/gpus.h"

namespace lockstep::testing {

inline constexpr DType kFloatingTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16,
                                           DType::kBFloat16};

/// The CPU, and the first GPU where there is one. For cases tagged [gpu].
///   for (const Device device : TestDevices()) { Worker worker = MakeWorker(device); ... }
inline std::vector<Device> TestDevices() {
  std::vector<Device> devices = {Device::Cpu()};
  if (const std::vector<Device> gpus = Gpus(); !gpus.empty()) devices.push_back(gpus[0]);
  return devices;
}

/// The only rank of a world of one.
inline Worker MakeWorker(Device device = Device::Cpu()) {
  auto worker = Worker::Adopt(0, 1, device);
  LOCKSTEP_CHECK(worker.ok());
  return *std::move(worker);
}

/// A tensor of these values, rounded to `dtype`, on the worker's device.
inline Tensor Make(Worker& worker, const Shape& shape, DType dtype, std::vector<double> values) {
  const Tensor exact = Tensor::View(values.data(), shape, DType::kFloat64);
  const Tensor tensor = *worker.Empty(shape, dtype);
  LOCKSTEP_CHECK(exact.size() == static_cast<std::int64_t>(values.size()) &&
                 Copy(worker, exact, tensor).ok());
  return tensor;
}

/// int32 [labels], on the worker's device.
inline Tensor MakeLabels(Worker& worker, std::vector<std::int32_t> labels) {
  const Shape shape = {static_cast<std::int64_t>(labels.size())};
  const Tensor tensor = *worker.Empty(shape, DType::kInt32);
  LOCKSTEP_CHECK(Copy(worker, Tensor::View(labels.data(), shape, DType::kInt32), tensor).ok());
  return tensor;
}

/// The tensor's elements, row after row, once its device has computed them.
inline std::vector<double> Values(Worker& worker, const Tensor& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.size()));
  LOCKSTEP_CHECK(
      Copy(worker, tensor, Tensor::View(values.data(), tensor.shape(), DType::kFloat64)).ok());
  return values;
}

/// Numbers of both signs and many sizes around 1, the same for the same salt.
inline std::vector<double> Spread(std::int64_t count, int salt = 0) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto turn = static_cast<double>((i * 7919 + salt * 104729) % 10007);
    values.push_back(4 * std::sin(turn) * std::exp2(-static_cast<double>((i + salt) % 11)));
  }
  return values;
}

/// The largest difference, in parts of the expected value's size (of `least` where it is smaller).
/// Infinity where only one is a NaN or the counts differ.
inline double Difference(const std::vector<double>& got, const std::vector<double>& expected,
                         double least = 1e-3) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i]))) continue;
    const double apart = std::abs(got[i] - expected[i]) / std::max(std::abs(expected[i]), least);
    most = std::isnan(apart) ? std::numeric_limits<double>::infinity() : std::max(most, apart);
  }
  return most;
}

/// One step between neighbouring numbers of `dtype`, relative to the larger.
inline double Epsilon(DType dtype) {
  if (dtype == DType::kFloat64) return 0x1p-52;
  if (dtype == DType::kFloat32) return 0x1p-23;
  return dtype == DType::kFloat16 ? 0x1p-10 : 0x1p-7;
}

/// What a result of a few steps in float32, rounded to `dtype`, may be off, relative.
inline double Tolerance(DType dtype) {
  if (dtype == DType::kFloat64) return 1e-14;
  if (dtype == DType::kFloat32) return 1e-6;
  return Epsilon(dtype) / 2;
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_RUNTIME_DEVICES_H_
