#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/harness/child_process.h"

int main() {
  auto executor = lockstep::Executor::Create({.world_size = 2});
  return executor.ok() && (*executor)->Run([](lockstep::Worker&) { return absl::OkStatus(); }).ok() ? 0 : 1;
}
