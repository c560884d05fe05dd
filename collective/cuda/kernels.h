// The kernels that move data between ranks on GPUs, and how they are launched. Plain types: the
// transports (.cc) choose and check, the .cu files hold a kernel and its launch.
#ifndef LOCKSTEP_COLLECTIVE_CUDA_KERNELS_H_
#define LOCKSTEP_COLLECTIVE_CUDA_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lockstep/collective/cuda/exchange_plan.h"
#include "lockstep/collective/cuda/plan.h"
#include "lockstep/collective/cuda/wait_report.h"

namespace lockstep::internal::cuda {

class KernelLoader;

// Without waiting: everything that is read is there when the kernel starts.

/// out[o][row, i] = op over in[r][row, i], for all `num_outputs` outputs.
struct ReduceWork {
  const void* in[kMaxRanks];
  void* out[kMaxRanks];
  int num_inputs;
  int num_outputs;
  DType dtype;
  ReduceOp op;
  std::int64_t rows;
  std::int64_t width;
  /// Elements from row to row.
  std::int64_t in_pitch;
  std::int64_t out_pitch;
};
cudaError_t LaunchReduce(const ReduceWork& work, cudaStream_t stream);

/// to[row] = from[row], for rows of `width` bytes. For small copies: large ones are for the copy
/// engines, which take some microseconds to start.
struct CopyWork {
  const void* from;
  void* to;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t from_pitch;
  std::int64_t to_pitch;
};
cudaError_t LaunchCopy(const CopyWork& work, cudaStream_t stream);

/// Swaps `bytes` bytes at a and b, which do not overlap.
cudaError_t LaunchSwap(void* a, void* b, std::int64_t bytes, cudaStream_t stream);

// Waiting for peers: every rank of the group launches the same kernel with the same shape.

/// What the kernels of one device know of the host's abort word, in that device's memory.
struct Lookout {
  unsigned long long last_look_ns;
  std::uint32_t aborted;
};

/// How a kernel that waits gives up: when `abort`, in host memory, is set, or when it has waited
/// `timeout_ns`; then it says in `report`, in host memory, for whom it waited in which call, and
/// sets `abort` for the others.
struct Watch {
  std::uint32_t* abort;
  WaitReport* report;
  WaitingCall call;
  Lookout* lookout;
  std::uint64_t timeout_ns;
};

/// One rank's memory that its peers write to and its own kernels read, laid out alike on all ranks.
/// All counters only grow.
struct Inbox {
  Lookout lookout;
  /// Signal: how many signals came from each peer.
  std::uint64_t signals[kMaxPeers];
  /// Signal: rounds done so far. This rank's own.
  std::uint64_t signal_rounds;

  static constexpr int kMaxLineWarps = 8192;
  /// Lines: rounds that each warp has done so far. This rank's own.
  std::uint64_t line_rounds[kMaxLineWarps];

  static constexpr int kMaxBlocks = 512;
  /// Push, per block and peer: tiles that have come in, and tiles whose result has been written.
  struct alignas(64) Tiles {
    std::uint64_t of[kMaxPeers];
  };
  Tiles pushed[kMaxBlocks];
  Tiles done[kMaxBlocks];
  /// Push: tiles that each block has handled in earlier rounds. This rank's own.
  std::uint64_t tiles_before[kMaxBlocks];
};

/// What every kernel that waits is told.
struct Peers {
  int rank;
  int world_size;
  Inbox* inbox[kMaxPeers];
  Watch watch;
};

/// Returns, on the stream, when all ranks' streams have come here; what they wrote before is
/// visible.
cudaError_t LaunchSignal(const Peers& peers, cudaStream_t stream);

/// All-reduce by lines: every rank writes its whole input into every peer's line buffer, in lines
/// of 128 bytes that carry 120 bytes and the number of the round, and sums up what comes in. One
/// hop, no barrier at either end: the buffer has two halves for even and odd rounds, and nobody
/// gets two rounds ahead of a rank from which it needs lines. As NCCL's LL128 protocol this relies
/// on the 16-byte stores of eight neighbouring lanes to one 128-byte line arriving together, which
/// NVLink does.
struct LineBuffers {
  Peers peers;
  /// Of each rank: [2 halves][world_size - 1 sources][lines of each warp].
  void* lines[kMaxPeers];
  LinesLayout layout;
  LaunchShape shape;
};
struct LinesWork {
  LineBuffers buffers;
  const void* in;
  void* out;
  std::int64_t count;
  DType dtype;
  ReduceOp op;
};
cudaError_t LaunchLines(const LinesWork& work, cudaStream_t stream);

/// Everything else by lines: what each rank sends to each, and where what comes in goes (see
/// ExchangePlan). The same buffers and the same rounds as all-reduces.
struct ExchangeWork {
  LineBuffers buffers;
  ExchangePlan plan;
  DType dtype;
  ReduceOp op;
};
cudaError_t LaunchExchange(const ExchangeWork& work, cudaStream_t stream);

/// All-reduce by pushing: every rank owns a slice. Tile by tile, everyone writes its input of the
/// slice into the owner's tile buffer, and the owner sums up and writes the result to everyone, as
/// in MSCCL's all-pairs algorithm (microsoft/msccl-tools, msccl/programs/allreduce_allpairs.py).
/// Writes alone cross the links, which carry more writes than reads. In place is fine. All
/// pointers are aligned to 16 bytes.
struct PushWork {
  Peers peers;
  /// Of each rank: [num_blocks][depth][world_size - 1 sources][max_tile_bytes].
  void* tiles[kMaxPeers];
  const void* in;
  void* out[kMaxPeers];
  std::int64_t count;
  DType dtype;
  ReduceOp op;
  int num_blocks;
  /// See PushLayout.
  int depth;
  /// See LaunchShape.
  bool in_pairs;
  /// That this kernel and the next may hold together.
  int max_blocks;
  /// A multiple of 128.
  std::int64_t max_tile_bytes;
};
cudaError_t LaunchPush(const PushWork& work, cudaStream_t stream);

// Proof that peers reach each other.

/// Writes a pattern of (seed, index) into `words` words at `to`, by kernel stores.
cudaError_t LaunchWritePattern(std::uint32_t* to, std::int64_t words, std::uint32_t seed,
                               cudaStream_t stream);
/// Adds the number of words at `from` that differ from the pattern to *wrong, by kernel loads.
cudaError_t LaunchCountWrong(const std::uint32_t* from, std::int64_t words, std::uint32_t seed,
                             std::uint32_t* wrong, cudaStream_t stream);

/// Loads all kernels of this folder on the current device, so that no launch has to: loading one
/// waits for the device, and so for a peer that may be waiting for us.
cudaError_t LoadKernels();

// Each file's part of it.
void LoadReduceKernels(KernelLoader& loader);
void LoadSignalKernels(KernelLoader& loader);
void LoadPatternKernels(KernelLoader& loader);
void LoadLinesKernels(KernelLoader& loader);
void LoadExchangeKernels(KernelLoader& loader);
void LoadPushKernels(KernelLoader& loader);

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_COLLECTIVE_CUDA_KERNELS_H_
