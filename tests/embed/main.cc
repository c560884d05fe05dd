#include "lockstep/collective/collective_barrier.h"
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/harness/child_process.h"

using namespace lockstep;

int main() {
  auto executor = Executor::Create({.world_size = 2});
  if (!executor.ok()) return 1;
  auto barrier = CollectiveBarrier::Create(**executor);
  if (!barrier.ok()) return 1;
  const absl::Status status = (*executor)->Run(
      [&](Worker& worker) { return (*barrier)->communicator(worker.rank()).Barrier(); });
  return testing::Expect(status.ok(), "no barrier").ok() ? 0 : 1;
}
