// Which core a rank's thread runs on.
#ifndef LOCKSTEP_RUNTIME_PINNING_H_
#define LOCKSTEP_RUNTIME_PINNING_H_

namespace lockstep::internal {

/// Binds the calling thread to the rank's own core, the ranks spread evenly over the cores that the
/// process may use. Does nothing where there are fewer cores than ranks, or in a build without
/// hwloc: pinning is a hint, never an error.
void PinThisThread(int rank, int world_size);

/// Whether this build can pin.
bool CanPin();

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_PINNING_H_
