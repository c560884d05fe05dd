// What the links, the copy engines and launches of these GPUs can do, and what the order of a sum
// costs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>

#include "lockstep/collective/cuda/transports.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/runtime/random.h"
#include "lockstep/tools/lockstep/bench/limits/kernels.h"
#include "lockstep/tools/lockstep/bench/limits/pair.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

constexpr std::int64_t kSizes[] = {64 << 20, 256 << 20};
// The number of empty kernels in a graph that is replayed.
constexpr int kEmptyKernels = 200;
// Of each of the arrays that are summed.
constexpr std::int64_t kSumBytes = 16 << 20;
constexpr std::int64_t kSumCount = kSumBytes / static_cast<std::int64_t>(sizeof(BFloat16));
// The arrays repeat with this period.
constexpr std::int64_t kPeriod = 4096;

// `bytes` is what one operation moves in each direction, 0 if it moves nothing.
absl::Status Add(Report& report, const char* name, const std::vector<Device>& devices,
                 std::int64_t bytes, const absl::StatusOr<Times>& times) {
  if (!times.ok()) return times.status();
  report.Add({{"name", name},
              {"devices", DeviceList(devices)},
              {"size_bytes", bytes},
              {"p50_us", times->p50},
              {"min_us", times->min},
              {"gb_s", static_cast<double>(bytes) / times->p50 / 1e3}});
  return absl::OkStatus();
}

// To and from pinned host memory at once, on all devices at once.
absl::StatusOr<Times> HostCopies(const std::vector<Device>& devices, std::int64_t bytes) {
  LimitLanes lanes;
  const auto size = static_cast<std::size_t>(bytes);
  for (const Device& device : devices) {
    for (const cudaMemcpyKind kind : {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost}) {
      LOCKSTEP_ASSIGN_OR_RETURN(auto here, DeviceMemory(device, bytes));
      LOCKSTEP_ASSIGN_OR_RETURN(auto host, PinnedMemory(device, bytes));
      const bool up = kind == cudaMemcpyHostToDevice;
      LOCKSTEP_RETURN_IF_ERROR(lanes.Add(device, [=](cudaStream_t stream) {
        return cudaMemcpyAsync(up ? here.get() : host.get(), up ? host.get() : here.get(), size,
                               kind, stream);
      }));
    }
  }
  return lanes.Measure();
}

absl::StatusOr<Times> LocalCopy(Device device, std::int64_t bytes) {
  LimitLanes lanes;
  LOCKSTEP_ASSIGN_OR_RETURN(auto in, DeviceMemory(device, bytes));
  LOCKSTEP_ASSIGN_OR_RETURN(auto out, DeviceMemory(device, bytes));
  LOCKSTEP_RETURN_IF_ERROR(lanes.Add(device, [=](cudaStream_t stream) {
    return cudaMemcpyAsync(out.get(), in.get(), static_cast<std::size_t>(bytes),
                           cudaMemcpyDeviceToDevice, stream);
  }));
  return lanes.Measure();
}

// One of many in a graph.
absl::StatusOr<Times> EmptyKernel(Device device) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto recorder, internal::cuda::MakeStream(device));
  const auto queue_all = [&]() -> absl::Status {
    const DeviceGuard guard(device);
    for (int i = 0; i < kEmptyKernels; ++i) {
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                    LaunchNothing(static_cast<cudaStream_t>(recorder.get())));
    }
    return absl::OkStatus();
  };
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto graph, internal::cuda::CaptureGraph(Stream(device, recorder.get()), queue_all));
  LimitLanes lanes;
  LOCKSTEP_RETURN_IF_ERROR(lanes.Add(device, [graph](cudaStream_t stream) {
    return cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.get()), stream);
  }));
  LOCKSTEP_ASSIGN_OR_RETURN(Times times, lanes.Measure());
  for (double* time : {&times.mean, &times.min, &times.p50, &times.p99}) *time /= kEmptyKernels;
  return times;
}

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
  std::vector<BFloat16> values(kSumCount);
  for (std::int64_t i = 0; i < kPeriod; ++i) values[i] = ValueAt(input, i);
  for (std::size_t i = kPeriod; i < values.size(); ++i) values[i] = values[i - kPeriod];
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, DeviceMemory(device, kSumBytes));
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaMemcpy(memory.get(), values.data(), kSumBytes, cudaMemcpyHostToDevice));
  return memory;
}

absl::StatusOr<std::int64_t> CountWrong(Device device, const void* out, SumOrder order) {
  std::vector<BFloat16> expected;
  for (std::int64_t i = 0; i < kPeriod; ++i) expected.push_back(SumAt(order, i));
  std::vector<BFloat16> found(kSumCount);
  const DeviceGuard guard(device);
  LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                cudaMemcpy(found.data(), out, kSumBytes, cudaMemcpyDeviceToHost));
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    wrong += found[i].bits != expected[i % kPeriod].bits;
  return wrong;
}

// Sums of eight bfloat16 arrays, as lockstep sums and as a loop does, in alternating rounds. Counts
// the elements whose bits differ from those of the same sum on the host.
absl::Status MeasureSumOrders(Device device, Report& report) {
  constexpr const char* kNames[] = {"eight inputs, tree order", "eight inputs, left to right"};
  constexpr SumOrder kOrders[] = {SumOrder::kTree, SumOrder::kLeftToRight};
  std::shared_ptr<void> inputs[8];
  EightInputs eight;
  for (int i = 0; i < 8; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(inputs[i], MakeInput(device, i));
    eight.at[i] = inputs[i].get();
  }
  int processors = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(
      device, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device.index()));
  std::shared_ptr<void> outs[2];
  LimitLanes lanes[2];
  for (int i = 0; i < 2; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(outs[i], DeviceMemory(device, kSumBytes));
    LOCKSTEP_RETURN_IF_ERROR(lanes[i].Add(
        device, [eight, out = outs[i].get(), order = kOrders[i], processors](cudaStream_t stream) {
          return LaunchSumEight(eight, out, kSumBytes, order, 4 * processors, stream);
        }));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Times> times,
                            LimitLanes::MeasureInTurns({&lanes[0], &lanes[1]}));
  std::int64_t wrong = report.document()["wrong"];
  for (int i = 0; i < 2; ++i) {
    // Eight arrays are read, and one is written.
    LOCKSTEP_RETURN_IF_ERROR(Add(report, kNames[i], {device}, 9 * kSumBytes, times[i]));
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t more,
                              CountWrong(device, outs[i].get(), kOrders[i]));
    wrong += more;
  }
  report.document()["wrong"] = wrong;
  return absl::OkStatus();
}

absl::Status MeasurePair(Device a, Device b, Report& report) {
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::EnablePeerAccess(a, b));
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::EnablePeerAccess(b, a));
  for (const std::int64_t bytes : kSizes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const LimitPair pair, MakePair(a, b, bytes));
    for (const bool writes : {false, true}) {
      LOCKSTEP_RETURN_IF_ERROR(Add(report, writes ? "kernel writes" : "kernel reads", {a, b}, bytes,
                                   KernelCopies(pair, writes)));
    }
    LOCKSTEP_RETURN_IF_ERROR(Add(report, "copy engines", {a, b}, bytes, CopyEngines(pair)));
  }
  return absl::OkStatus();
}

absl::Status MeasureHostCopies(const std::vector<Device>& devices, Report& report) {
  for (const std::int64_t bytes : kSizes) {
    LOCKSTEP_RETURN_IF_ERROR(
        Add(report, "pinned host copies", devices, bytes, HostCopies(devices, bytes)));
  }
  return absl::OkStatus();
}

absl::Status MeasureAlone(Device device, Report& report) {
  LOCKSTEP_RETURN_IF_ERROR(MeasureHostCopies({device}, report));
  for (const std::int64_t bytes : kSizes) {
    // Local memory has no directions: what is read and what is written are added up.
    LOCKSTEP_RETURN_IF_ERROR(
        Add(report, "local, read + write", {device}, 2 * bytes, LocalCopy(device, bytes)));
  }
  LOCKSTEP_RETURN_IF_ERROR(Add(report, "empty kernel in graph", {device}, 0, EmptyKernel(device)));
  return MeasureSumOrders(device, report);
}

}  // namespace

absl::Status BenchLimits(const BenchOptions& options) {
  const std::vector<Device>& devices = options.executor.devices;
  if (std::any_of(devices.begin(), devices.end(), [](const Device& d) { return d.is_cpu(); })) {
    return absl::InvalidArgumentError("limits: they are those of GPUs; give --devices=cuda");
  }
  Report report(options.json, "limits, median of 7 rounds; GB/s in each direction",
                {{"", 28, "name"},
                 {"devices", 24, "devices"},
                 {"size (B)", 12, "size_bytes"},
                 {"time (us)", 10, "p50_us", 3},
                 {"min (us)", 10, "min_us", 3},
                 {"GB/s", 10, "gb_s", 1}},
                {{"benchmark", "limits"}, {"gpus", GpuLine(devices)}, {"wrong", 0}},
                {GpuLine(devices)});
  for (std::size_t i = 0; i < devices.size(); ++i) {
    for (std::size_t j = i + 1; j < devices.size(); ++j)
      LOCKSTEP_RETURN_IF_ERROR(MeasurePair(devices[i], devices[j], report));
  }
  for (const Device& device : devices) LOCKSTEP_RETURN_IF_ERROR(MeasureAlone(device, report));
  if (devices.size() > 1) LOCKSTEP_RETURN_IF_ERROR(MeasureHostCopies(devices, report));
  return report.Finish();
}

}  // namespace lockstep::tools
