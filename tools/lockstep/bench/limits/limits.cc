// What the links, the copy engines and launches of these GPUs can do, and what the order of a sum
// costs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>

#include "absl/strings/str_join.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/tools/lockstep/bench/limits/kernels.h"
#include "lockstep/tools/lockstep/bench/limits/order.h"
#include "lockstep/tools/lockstep/bench/limits/pair.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

using internal::cuda::DeviceGuard;

constexpr std::int64_t kSizes[] = {64 << 20, 256 << 20};
// The number of empty kernels in a graph that is replayed.
constexpr int kEmptyKernels = 200;

// `bytes` is what one operation moves in each direction, 0 if it moves nothing.
void Add(Report& report, absl::string_view name, const std::string& devices, std::int64_t bytes,
         const Times& times) {
  report.Add({{"name", std::string(name)},
              {"devices", devices},
              {"size_bytes", bytes},
              {"p50_us", times.p50},
              {"min_us", times.min},
              {"gb_s", static_cast<double>(bytes) / times.p50 / 1e3}});
}

std::string Join(const std::vector<Device>& devices) {
  return absl::StrJoin(devices, ", ", [](std::string* text, const Device& device) {
    text->append(device.ToString());
  });
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

absl::Status MeasurePair(Device a, Device b, Report& report) {
  LOCKSTEP_RETURN_IF_ERROR(LetReach(a, b));
  for (const std::int64_t bytes : kSizes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const LimitPair pair, MakePair(a, b, bytes));
    const std::string devices = Join(pair.both());
    for (const bool writes : {false, true}) {
      LOCKSTEP_ASSIGN_OR_RETURN(const Times times, KernelCopies(pair, writes));
      Add(report, writes ? "kernel writes" : "kernel reads", devices, bytes, times);
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const Times engines, CopyEngines(pair));
    Add(report, "copy engines", devices, bytes, engines);
  }
  return absl::OkStatus();
}

absl::Status MeasureHostCopies(const std::vector<Device>& devices, Report& report) {
  for (const std::int64_t bytes : kSizes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Times times, HostCopies(devices, bytes));
    Add(report, "pinned host copies", Join(devices), bytes, times);
  }
  return absl::OkStatus();
}

absl::Status MeasureAlone(Device device, Report& report) {
  LOCKSTEP_RETURN_IF_ERROR(MeasureHostCopies({device}, report));
  for (const std::int64_t bytes : kSizes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Times times, LocalCopy(device, bytes));
    // Local memory has no directions: what is read and what is written are added up.
    Add(report, "local, read + write", device.ToString(), 2 * bytes, times);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Times times, EmptyKernel(device));
  Add(report, "empty kernel in graph", device.ToString(), 0, times);
  LOCKSTEP_ASSIGN_OR_RETURN(const SumOrderTimes sums, MeasureSumOrders(device));
  Add(report, "eight inputs, tree order", device.ToString(), sums.bytes, sums.tree);
  Add(report, "eight inputs, left to right", device.ToString(), sums.bytes, sums.left_to_right);
  report.document()["wrong"] = report.document()["wrong"].get<std::int64_t>() + sums.wrong;
  return absl::OkStatus();
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
