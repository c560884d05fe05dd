// One rank's data in the benchmark of one size of a collective.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_BENCH_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_BENCH_H_

#include "absl/functional/function_ref.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/collective_data.h"
#include "lockstep/tools/peers/nccl/nccl_peer.h"

namespace lockstep::tools {

/// in: [size.in_count], out: [size.out_count], on the rank's device; one memory if in place.
struct CollectiveBuffers {
  Tensor in;
  Tensor out;
};

/// Makes buffers, fills them, and looks at every element of the results. Used by the rank's thread.
class RankBench {
 public:
  RankBench(CollectiveKind kind, const BenchOptions& options, Worker& worker,
            const CollectiveSize& size)
      : kind_(kind), options_(options), worker_(worker), size_(size) {}

  /// Buffers in the worker's memory, or in NCCL's unless null; the input is filled.
  absl::StatusOr<CollectiveBuffers> MakeBuffers(NcclPeer* nccl = nullptr);

  /// Queues the collective once.
  absl::Status Queue(Communicator& comm, const CollectiveBuffers& buffers) const;

  /// Fresh inputs, an output full of junk, one more run by `queue`, and every element looked at:
  /// how many are wrong.
  absl::StatusOr<std::int64_t> CountWrong(const CollectiveBuffers& buffers,
                                          absl::FunctionRef<absl::Status()> queue);

 private:
  absl::StatusOr<Tensor> EmptyOnHost(std::int64_t count) const;
  absl::Status FillInput(const Tensor& tensor);

  const CollectiveKind kind_;
  const BenchOptions& options_;
  Worker& worker_;
  const CollectiveSize size_;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_RANK_BENCH_H_
