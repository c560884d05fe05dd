#include "lockstep/collective/cuda/kernels.h"
#include "lockstep/collective/cuda/signals.cuh"
#include "lockstep/runtime/cuda/launch.cuh"

namespace lockstep::internal::cuda {
namespace {

// Thread t speaks with rank t.
__global__ void SignalKernel(const __grid_constant__ Peers peers) {
  Inbox* const mine = peers.inbox[peers.rank];
  const int peer = static_cast<int>(threadIdx.x);
  const std::uint64_t round = mine->signal_rounds + 1;
  if (IsPeer(peers, peer)) {
    ReleaseFlag(&peers.inbox[peer]->signals[peers.rank], round);
    AwaitFlag(&mine->signals[peer], round, peers.watch, peer);
  }
  __syncthreads();
  if (threadIdx.x == 0) mine->signal_rounds = round;
}

}  // namespace

cudaError_t LaunchSignal(const Peers& peers, cudaStream_t stream) {
  return Launch(SignalKernel, 1, 32, stream, peers);
}

void LoadSignalKernels(KernelLoader& loader) { loader.Load(SignalKernel); }

}  // namespace lockstep::internal::cuda
