#include <cstdio>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/executor.h"

using namespace lockstep;

absl::Status Main() {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor,
                            Executor::Create({.devices = {Device::Cpu()}, .world_size = 4}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
  return executor->Run([&](Worker& worker) -> absl::Status {  // four threads, one per rank
    Communicator& comm = barrier->communicator(worker.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto up,
        ColumnParallelLinear::Create(worker, comm, {.in_features = 64, .out_features = 1024}));
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto down,
        RowParallelLinear::Create(worker, comm, {.in_features = 1024, .out_features = 10}));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({8, 64}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor h, up.Forward(x));  // [8, 1024 / 4], no collective
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor a, Gelu(worker, h));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, down.Forward(a));  // [8, 10] on every rank, one all-reduce
    if (worker.rank() == 0)
      std::printf("%s, first element %.6f\n", y.ToString().c_str(), *y.data<float>());
    return absl::OkStatus();
  });
}

int main() {
  const absl::Status status = Main();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
