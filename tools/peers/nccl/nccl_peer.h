// NCCL beside lockstep, for comparison only: the library itself never links it. A build without
// NCCL has the same functions (nccl_absent.cc), which say so.
#ifndef LOCKSTEP_TOOLS_PEERS_NCCL_NCCL_PEER_H_
#define LOCKSTEP_TOOLS_PEERS_NCCL_NCCL_PEER_H_

#include <memory>
#include <string>

#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/executor.h"

namespace lockstep::tools {

/// "2.28.9", that of the library which is loaded; empty in a build without NCCL.
std::string NcclVersion();

/// A communicator per rank of the executor, in one process, a thread each.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(auto nccl, NcclPeer::Create(*executor, /*symmetric=*/false));
///   executor->Run([&](Worker& worker) {
///     return nccl->Queue(worker, CollectiveKind::kAllReduce, ReduceOp::kSum, in, out);
///   });
///
/// Destroy it only when none of its work is queued on any rank and no graph holds any.
class NcclPeer {
 public:
  /// With `symmetric`, Empty() gives memory registered in a symmetric window. Sets NCCL_NVLS_ENABLE
  /// to 0: without NVLink multicast. kUnavailable: this build has no NCCL, or NCCL cannot serve
  /// these ranks (each needs a GPU of its own).
  static absl::StatusOr<std::unique_ptr<NcclPeer>> Create(Executor& executor, bool symmetric);
  virtual ~NcclPeer() = default;

  /// Memory for Queue(): the worker's own unless symmetric. All ranks call it alike, with one size;
  /// no rank may free it while another still uses it.
  virtual absl::StatusOr<Tensor> Empty(Worker& worker, std::int64_t count, DType dtype) = 0;

  /// Queues one collective on the worker's stream and returns; it may be captured in a graph.
  /// Tensors as for Communicator. Broadcast is from rank 0.
  virtual absl::Status Queue(Worker& worker, CollectiveKind kind, ReduceOp op, const Tensor& in,
                             const Tensor& out) = 0;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_PEERS_NCCL_NCCL_PEER_H_
