#include "lockstep/tools/lockstep/bench/limits/order.h"

#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/random.h"
#include "lockstep/tools/lockstep/bench/limits/kernels.h"
#include "lockstep/tools/lockstep/bench/limits/lanes.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

constexpr std::int64_t kBytes = 16 << 20;
constexpr std::int64_t kCount = kBytes / static_cast<std::int64_t>(sizeof(BFloat16));
// The arrays repeat with this period.
constexpr std::int64_t kPeriod = 4096;

// Two large numbers that cancel absorb the small ones between them: different ones in each order.
BFloat16 ValueAt(int input, std::int64_t index) {
  const std::int64_t role = (input * 3 + index) % 8;
  if (role == 0 || role == 2) return BFloat16::FromFloat(role == 0 ? 0x1p27f : -0x1p27f);
  const auto seed = static_cast<std::uint64_t>(input);
  return BFloat16::FromFloat(2 * UniformAt(seed, static_cast<std::uint64_t>(index)) - 1);
}

BFloat16 SumAt(SumOrder order, std::int64_t index) {
  float v[8];
  for (int input = 0; input < 8; ++input) v[input] = ValueAt(input, index).ToFloat();
  float sum = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
  if (order == SumOrder::kLeftToRight) {
    sum = v[0];
    for (int input = 1; input < 8; ++input) sum += v[input];
  }
  return BFloat16::FromFloat(sum);
}

absl::StatusOr<std::shared_ptr<void>> MakeInput(Device device, int input) {
  std::vector<BFloat16> values(kCount);
  for (std::int64_t i = 0; i < kPeriod; ++i) values[i] = ValueAt(input, i);
  for (std::size_t i = kPeriod; i < values.size(); ++i) values[i] = values[i - kPeriod];
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, DeviceMemory(device, kBytes));
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaMemcpy(memory.get(), values.data(), kBytes, cudaMemcpyHostToDevice));
  return memory;
}

absl::StatusOr<std::int64_t> CountWrong(Device device, const void* out, SumOrder order) {
  std::vector<BFloat16> expected;
  for (std::int64_t i = 0; i < kPeriod; ++i) expected.push_back(SumAt(order, i));
  std::vector<BFloat16> found(kCount);
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                cudaMemcpy(found.data(), out, kBytes, cudaMemcpyDeviceToHost));
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    wrong += found[i].bits != expected[i % kPeriod].bits;
  return wrong;
}

}  // namespace

absl::StatusOr<SumOrderTimes> MeasureSumOrders(Device device) {
  std::shared_ptr<void> inputs[8];
  EightInputs eight;
  for (int i = 0; i < 8; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(inputs[i], MakeInput(device, i));
    eight.at[i] = inputs[i].get();
  }
  int processors = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device.index()));
  constexpr SumOrder kOrders[] = {SumOrder::kTree, SumOrder::kLeftToRight};
  std::shared_ptr<void> outs[2];
  LimitLanes lanes[2];
  for (int i = 0; i < 2; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(outs[i], DeviceMemory(device, kBytes));
    LOCKSTEP_RETURN_IF_ERROR(lanes[i].Add(
        device, [eight, out = outs[i].get(), order = kOrders[i], processors](cudaStream_t stream) {
          return LaunchSumEight(eight, out, kBytes, order, 4 * processors, stream);
        }));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Times> times,
                            LimitLanes::MeasureInTurns({&lanes[0], &lanes[1]}));
  SumOrderTimes result{.bytes = 9 * kBytes, .tree = times[0], .left_to_right = times[1]};
  for (int i = 0; i < 2; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t wrong,
                              CountWrong(device, outs[i].get(), kOrders[i]));
    result.wrong += wrong;
  }
  return result;
}

}  // namespace lockstep::tools
