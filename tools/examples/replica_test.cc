// Finds a bug that tensor-parallel code really has: a row layer's bias that one rank alone adds.
#include <cstdio>

#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/harness/replica_check.h"
#include "lockstep/tests/harness/run_ranks.h"

using namespace lockstep;

absl::Status Forward(Worker& worker, Communicator& comm, bool with_bug) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto row, RowParallelLinear::Create(
      worker, comm, {.in_features = 8, .out_features = 4, .input_is_parallel = false, .skip_bias_add = true}));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({2, 8}, DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1, x));
  lockstep::testing::ReplicaCheck replicas(worker);
  LOCKSTEP_RETURN_IF_ERROR(replicas.Note("input", x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, row.Forward(x));
  LOCKSTEP_RETURN_IF_ERROR(replicas.Note("row.Forward", y));
  // "The bias must be added once" is not "by one rank": after the sum every rank adds it.
  if (!with_bug || comm.rank() == 0) LOCKSTEP_RETURN_IF_ERROR(AddBias(worker, row.bias()->value(), y));
  LOCKSTEP_RETURN_IF_ERROR(replicas.Note("bias", y));
  return replicas.Compare(comm);
}

int main() {
  const auto run = [](bool with_bug) {
    return lockstep::testing::RunRanks({.world_size = 4}, [&](Worker& worker, Communicator& comm) {
      return Forward(worker, comm, with_bug);
    });
  };
  const absl::Status found = run(true);
  std::puts(found.ToString().c_str());
  return run(false).ok() && !found.ok() ? 0 : 1;
}
