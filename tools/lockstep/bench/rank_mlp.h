// One rank's part of the MLP that is benchmarked, and what takes turns with it.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_MLP_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_MLP_H_

#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {

/// A ParallelMlp hidden -> inner -> GELU -> hidden without biases, with seeded weights, and uniform
/// numbers in [-1, 1) as input and as gradient of the output, the same on every rank. Used by the
/// rank's thread; holds on to `worker` and `comm`. All calls but CountWrong queue work and may be
/// captured in a graph.
class RankMlp {
 public:
  static absl::StatusOr<RankMlp> Create(Worker& worker, Communicator& comm,
                                        const MlpBenchOptions& options, std::int64_t rows);

  /// The output: [rows, hidden], replicated.
  absl::StatusOr<Tensor> Forward();
  /// Forward and backward, which writes the weights' gradients anew. The gradient of the input:
  /// [rows, hidden], replicated.
  absl::StatusOr<Tensor> ForwardBackward();
  /// Forward's two products on the same shards, and nothing else.
  absl::Status QueueProducts();
  /// Forward with the all-reduce behind the second product, nothing overlapped.
  absl::StatusOr<Tensor> ForwardInSequence();
  /// Forward with NCCL's all-reduce in place of lockstep's, on the same stream. Like QueueProducts
  /// it overwrites the result of the call before, whose memory was taken by Create.
  absl::StatusOr<Tensor> ForwardThrough(NcclPeer& nccl);

  /// Runs all of the above that has a result once more (NCCL's unless null), and compares every
  /// element with an unsharded ParallelMlp of the same weights on this rank's device: how many are
  /// further from it than Tolerance(). All ranks call it; what they have queued is done on return.
  absl::StatusOr<std::int64_t> CountWrong(NcclPeer* nccl);

  /// How the layers overlap: the second one's Forward and the first one's Backward.
  OverlapChoice forward_overlap() const { return mlp_.down().overlap(x_.extent(0)); }
  OverlapChoice backward_overlap() const { return mlp_.up().overlap(x_.extent(0)); }

  /// How many of `found` are further than Tolerance() from `expected`. Used by CountWrong.
  static std::int64_t CountFar(DType dtype, const std::vector<double>& found,
                               const std::vector<double>& expected);

  /// As a part of the largest element of the unsharded result: shards round their parts of a sum
  /// before these are added up, so a few last places of the largest may be lost.
  static double Tolerance(DType dtype);

 private:
  RankMlp(Worker& worker, Communicator& comm, const MlpBenchOptions& options, ParallelMlp mlp)
      : worker_(&worker), comm_(&comm), options_(&options), mlp_(std::move(mlp)) {}

  // Into out_.
  absl::Status QueuePartOfForward();

  Worker* worker_;
  Communicator* comm_;
  const MlpBenchOptions* options_;
  ParallelMlp mlp_;
  Tensor x_;         // [rows, hidden], replicated
  Tensor grad_out_;  // [rows, hidden], replicated
  // What QueueProducts and ForwardThrough write.
  Tensor inner_;  // [rows, inner / world_size], split on the last axis
  Tensor out_;    // [rows, hidden]
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_MLP_H_
