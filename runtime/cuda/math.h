// The math of runtime/elementwise.h, matmul.h, random.h and update.h on a worker's GPU: each
// function has the name of its front. Arguments are checked, and hold at least one element. Work is
// queued on the worker's stream.
#ifndef LOCKSTEP_RUNTIME_CUDA_MATH_H_
#define LOCKSTEP_RUNTIME_CUDA_MATH_H_

#include <cstdint>

#include "lockstep/runtime/status.h"

namespace lockstep {

class Tensor;
class Worker;
enum class Activation : unsigned char;
struct AdamWOptions;
struct CrossEntropyResult;
struct MatMulOptions;
struct SgdOptions;

namespace internal::cuda {

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

}  // namespace internal::cuda
}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_CUDA_MATH_H_
