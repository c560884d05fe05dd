// A tensor-parallel layer against its unsharded reference, on four ranks, forward and backward.
#include <cstdio>

#include "lockstep/layers/linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/gradient_check.h"
#include "lockstep/tests/harness/run_ranks.h"

using namespace lockstep;

absl::Status RowEqualsWhole(Worker& worker, Communicator& comm) {
  // The same seed gives the same full weight, sharded or not.
  LOCKSTEP_ASSIGN_OR_RETURN(auto whole, Linear::Create(worker, {.in_features = 12, .out_features = 5, .seed = 1}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto row, RowParallelLinear::Create(
      worker, comm, {.in_features = 12, .out_features = 5, .input_is_parallel = false, .seed = 1}));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({3, 12}, DType::kFloat32));
  for (int i = 0; i < 36; ++i) x.data<float>()[i] = 0.1f * static_cast<float>(i % 7);
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected, whole.Forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, row.Forward(x));
  LOCKSTEP_RETURN_IF_ERROR(lockstep::testing::ExpectClose(worker, "y", y, expected, /*ulps=*/8));
  // The loss is the sum of y, so its gradient is 1 everywhere.
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1, y));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor grad_x, row.Backward(x, y));
  const auto loss = [&]() -> absl::StatusOr<double> {
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor out, row.Forward(x));
    double sum = 0;
    for (int i = 0; i < 15; ++i) sum += out.data<float>()[i];
    return sum;
  };
  return lockstep::testing::CheckGradient(worker, comm, "row layer", x, grad_x, loss, {.replicated = true});
}

int main() {  // or a TEST of your framework's
  const absl::Status status = lockstep::testing::RunRanks({.world_size = 4}, RowEqualsWhole);
  std::puts(status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
