#include "lockstep/tools/lockstep/bench/rank_bench.h"

#include <cstring>

#include "lockstep/runtime/elementwise.h"

namespace lockstep::tools {

absl::StatusOr<CollectiveBuffers> RankBench::MakeBuffers(NcclPeer* nccl) {
  const auto allocate = [&](std::int64_t count) {
    return nccl == nullptr ? worker_.Empty({count}, options_.dtype)
                           : nccl->Empty(worker_, count, options_.dtype);
  };
  CollectiveBuffers buffers;
  const bool part_of_out = options_.in_place && kind_ == CollectiveKind::kAllGather;
  if (!part_of_out) {
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.in, allocate(size_.in_count));
  }
  if (!options_.in_place || part_of_out) {
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.out, allocate(size_.out_count));
  } else {
    buffers.out = buffers.in;
  }
  // The part of the whole that this rank gives or gets.
  if (part_of_out) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        buffers.in, buffers.out.Slice(0, size_.in_count * worker_.rank(), size_.in_count));
  } else if (options_.in_place && kind_ == CollectiveKind::kReduceScatter) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        buffers.out, buffers.in.Slice(0, size_.out_count * worker_.rank(), size_.out_count));
  }
  LOCKSTEP_RETURN_IF_ERROR(FillInput(buffers.in));
  return buffers;
}

absl::Status RankBench::Queue(Communicator& comm, const CollectiveBuffers& buffers) const {
  switch (kind_) {
    case CollectiveKind::kReduceScatter:
      return comm.ReduceScatter(buffers.in, buffers.out, options_.op);
    case CollectiveKind::kAllGather:
      return comm.AllGather(buffers.in, buffers.out);
    case CollectiveKind::kBroadcast:
      return comm.Broadcast(buffers.in, buffers.out, 0);
    case CollectiveKind::kAllToAll:
      return comm.AllToAll(buffers.in, buffers.out);
    default:
      return comm.AllReduce(buffers.in, buffers.out, options_.op);
  }
}

absl::StatusOr<std::int64_t> RankBench::CountWrong(const CollectiveBuffers& buffers,
                                                   absl::FunctionRef<absl::Status()> queue) {
  // In place the input is a part of this, and comes after.
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, -77, buffers.out));
  LOCKSTEP_RETURN_IF_ERROR(FillInput(buffers.in));
  LOCKSTEP_RETURN_IF_ERROR(queue());
  if (options_.spoil) options_.spoil(worker_.rank(), buffers.out);
  Tensor found = buffers.out;
  if (!worker_.device().is_cpu()) {
    LOCKSTEP_ASSIGN_OR_RETURN(found, EmptyOnHost(size_.out_count));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, buffers.out, found));
  }
  std::int64_t wrong = 0;
  VisitDType(options_.dtype, [&]<typename T>() {
    for (std::int64_t i = 0; i < found.size(); ++i) {
      const T expected =
          ExpectedAt<T>(kind_, options_.op, worker_.rank(), worker_.world_size(), size_, i);
      // By their bits, which are promised: NaN differs from every number, and -0 from 0.
      wrong += std::memcmp(found.data<T>() + i, &expected, sizeof(T)) != 0;
    }
  });
  return wrong;
}

absl::StatusOr<Tensor> RankBench::EmptyOnHost(std::int64_t count) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const Worker host, Worker::Adopt(0, 1, Device::Cpu()));
  return host.Empty({count}, options_.dtype);
}

absl::Status RankBench::FillInput(const Tensor& tensor) {
  Tensor filled = tensor;
  if (!worker_.device().is_cpu()) {
    LOCKSTEP_ASSIGN_OR_RETURN(filled, EmptyOnHost(tensor.size()));
  }
  VisitDType(options_.dtype, [&]<typename T>() {
    for (std::int64_t i = 0; i < filled.size(); ++i)
      filled.data<T>()[i] = InputAt<T>(options_.op, worker_.rank(), i);
  });
  return worker_.device().is_cpu() ? absl::OkStatus() : Copy(worker_, filled, tensor);
}

}  // namespace lockstep::tools
