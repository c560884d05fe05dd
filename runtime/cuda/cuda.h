// What the runtime asks of CUDA. A build without CUDA has the same functions (absent.cc): they find
// no device, so that nothing else is ever asked of them.
#ifndef LOCKSTEP_RUNTIME_CUDA_CUDA_H_
#define LOCKSTEP_RUNTIME_CUDA_CUDA_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/update.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::internal::cuda {

/// Devices that can be used; 0 without a driver.
int DeviceCount();
/// OK if there is such a device. kUnavailable: there is not, and how many there are.
absl::Status CheckDevice(Device device);
/// Makes `device` the calling thread's current one, so that no call needs to switch.
void UseDevice(Device device);
/// The CPUs that are nearest to the device, in rising order; none where the system does not say.
std::vector<int> CpusNear(Device device);

/// A new stream that waits for no other, as Stream::native, destroyed with its last owner.
absl::StatusOr<std::shared_ptr<void>> MakeStream(Device device);
/// Whether lockstep can work on a stream of the host's. kInvalidArgument: it is of another device,
/// or of a context of the host's own there.
absl::Status CheckStream(const Stream& stream);
absl::Status Synchronize(const Stream& stream);
/// Memory for tensors used on `stream`.
absl::StatusOr<std::shared_ptr<MemoryPool>> MakeMemoryPool(const Stream& stream);
/// What the math of one rank keeps: the library handle, its workspace and its plans. All kernels of
/// the runtime are loaded on the device when this returns.
absl::StatusOr<std::shared_ptr<WorkerState>> MakeWorkerState(const Stream& stream);

/// The executable graph of what `work` queues on `stream`.
absl::StatusOr<std::shared_ptr<void>> CaptureGraph(const Stream& stream,
                                                   absl::FunctionRef<absl::Status()> work);
absl::Status LaunchGraph(const Stream& stream, void* executable);

// The math of runtime/elementwise.h, matmul.h, update.h and random.h on a worker's GPU. Arguments
// are checked, and hold at least one element. Work is queued on the worker's stream.

absl::Status Fill(Worker& worker, double value, const Tensor& out);
/// Both on the worker's device; any strides, any types.
absl::Status Copy(Worker& worker, const Tensor& in, const Tensor& out);
/// One on the worker's device, the other on the CPU; both contiguous and of one type. Returns when
/// it is done.
absl::Status CopyAcross(Worker& worker, const Tensor& in, const Tensor& out);
absl::Status AddBias(Worker& worker, const Tensor& bias, const Tensor& x);
absl::Status ColumnSums(Worker& worker, const Tensor& x, const Tensor& out, bool accumulate);
absl::Status Activate(Worker& worker, Activation activation, const Tensor& x, const Tensor& out);
absl::Status ActivateBackward(Worker& worker, Activation activation, const Tensor& x,
                              const Tensor& grad_out, const Tensor& grad_in);
/// Checks the labels too. Waits for the device.
absl::StatusOr<CrossEntropyResult> SoftmaxCrossEntropy(Worker& worker, const Tensor& logits,
                                                       const Tensor& labels, const Tensor& grad);
absl::Status FillUniformBlock(Worker& worker, std::uint64_t seed, float bound,
                              std::int64_t first_row, std::int64_t first_column,
                              std::int64_t full_columns, const Tensor& out);
absl::Status SgdUpdate(Worker& worker, const SgdOptions& options, const Tensor& gradient,
                       const Tensor& velocity, const Tensor& master, const Tensor& value);
absl::Status AdamWUpdate(Worker& worker, const AdamWOptions& options, std::int64_t step,
                         const Tensor& gradient, const Tensor& mean, const Tensor& mean_square,
                         const Tensor& master, const Tensor& value);
/// No extent is 0.
absl::Status MatMul(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                    MatMulOptions options);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_CUDA_H_
