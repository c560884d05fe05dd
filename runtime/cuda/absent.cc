// A build without CUDA: there is no device, and nobody gets as far as asking for work on one.
#include "lockstep/runtime/cuda/device.h"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/memory_pool.h"
#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/update.h"

namespace lockstep::internal::cuda {
namespace {

absl::Status NoCuda() {
  return absl::UnavailableError("a GPU asked for, but this build has no CUDA");
}

}  // namespace

int DeviceCount() { return 0; }
int NumMultiprocessors(Device) { return 0; }
absl::Status CheckDevice(Device device) {
  return absl::UnavailableError(
      absl::StrCat(device.ToString(), " asked for, but this build has no CUDA"));
}
void UseDevice(Device) {}
std::vector<int> CpusNear(Device) { return {}; }
absl::StatusOr<std::shared_ptr<void>> MakeStream(Device) { return NoCuda(); }
absl::Status CheckStream(const Stream& stream) { return CheckDevice(stream.device()); }
bool IsCapturing(const Stream&) { return false; }
absl::Status Synchronize(const Stream&) { return NoCuda(); }
absl::Status QueueZeros(const Stream&, void*, std::int64_t) { return NoCuda(); }
absl::StatusOr<std::shared_ptr<MemoryPool>> MakeMemoryPool(const Stream&) { return NoCuda(); }
absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream&) { return NoCuda(); }
absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream&,
                                                   absl::FunctionRef<absl::Status()>) {
  return NoCuda();
}
absl::Status LaunchGraph(const Stream&, void*) { return NoCuda(); }
absl::Status Fill(Worker&, double, const Tensor&) { return NoCuda(); }
absl::Status Copy(Worker&, const Tensor&, const Tensor&) { return NoCuda(); }
absl::Status CopyAcross(Worker&, const Tensor&, const Tensor&) { return NoCuda(); }
absl::Status AddBias(Worker&, const Tensor&, const Tensor&) { return NoCuda(); }
absl::Status ColumnSums(Worker&, const Tensor&, const Tensor&, bool) { return NoCuda(); }
absl::Status Activate(Worker&, Activation, const Tensor&, const Tensor&) { return NoCuda(); }
absl::Status ActivateBackward(Worker&, Activation, const Tensor&, const Tensor&, const Tensor&) {
  return NoCuda();
}
absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker&, const Tensor&, const Tensor&,
                                                       const Tensor&) {
  return NoCuda();
}
absl::Status FillUniformBlock(Worker&, std::uint64_t, float, std::int64_t, std::int64_t,
                              std::int64_t, const Tensor&) {
  return NoCuda();
}
absl::Status SgdUpdate(Worker&, const SgdOptions&, const Tensor&, const Tensor&, const Tensor&,
                       const Tensor&) {
  return NoCuda();
}
absl::Status AdamWUpdate(Worker&, const AdamWOptions&, std::int64_t, const Tensor&, const Tensor&,
                         const Tensor&, const Tensor&, const Tensor&) {
  return NoCuda();
}
absl::Status MatMul(Worker&, const Tensor&, const Tensor&, const Tensor&, MatMulOptions) {
  return NoCuda();
}

}  // namespace lockstep::internal::cuda
