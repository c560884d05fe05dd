#include "lockstep/tools/lockstep/rank_bench.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lockstep/runtime/elementwise.h"

namespace lockstep::tools {
namespace {

// Calls part(exact, there, begin) for each piece of a host tensor, with as many float64 beside it:
// small pieces, because a float64 of each element of a large tensor would be gigabytes.
absl::Status InPieces(
    const Tensor& host,
    absl::FunctionRef<absl::Status(const Tensor& exact, const Tensor& there, std::int64_t begin)>
        part) {
  constexpr std::int64_t kPiece = 32 << 10;
  std::vector<double> exact(static_cast<std::size_t>(std::min(kPiece, host.size())));
  for (std::int64_t begin = 0; begin < host.size(); begin += kPiece) {
    const std::int64_t length = std::min(kPiece, host.size() - begin);
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor there, host.Slice(0, begin, length));
    LOCKSTEP_RETURN_IF_ERROR(
        part(Tensor::View(exact.data(), {length}, DType::kFloat64), there, begin));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CollectiveBuffers> RankBench::MakeBuffers() {
  return MakeBuffers(
      [this](std::int64_t count, DType dtype) { return worker_.Empty({count}, dtype); });
}

absl::StatusOr<CollectiveBuffers> RankBench::MakeBuffers(Allocate allocate) {
  CollectiveBuffers buffers;
  const bool part_of_out = options_.in_place && kind_ == CollectiveKind::kAllGather;
  if (!part_of_out) {
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.in, allocate(size_.in_count, options_.dtype));
  }
  if (!options_.in_place || part_of_out) {
    LOCKSTEP_ASSIGN_OR_RETURN(buffers.out, allocate(size_.out_count, options_.dtype));
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
  if (!options_.in_place) LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, -77, buffers.out));
  LOCKSTEP_RETURN_IF_ERROR(FillInput(buffers.in));
  LOCKSTEP_RETURN_IF_ERROR(queue());
  Tensor found = buffers.out;
  if (!worker_.device().is_cpu()) {
    LOCKSTEP_ASSIGN_OR_RETURN(found, EmptyOnHost(size_.out_count));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, buffers.out, found));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Worker host, Worker::Adopt(0, 1, Device::Cpu()));
  std::int64_t wrong = 0;
  LOCKSTEP_RETURN_IF_ERROR(
      InPieces(found, [&](const Tensor& exact, const Tensor& there, std::int64_t begin) {
        absl::Status copied = Copy(host, there, exact);
        for (std::int64_t i = 0; i < exact.size(); ++i) {
          wrong +=
              !IsRight(exact.data<double>()[i], ExpectedAt(kind_, options_.op, worker_.rank(),
                                                           worker_.world_size(), size_, begin + i));
        }
        return copied;
      }));
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
  LOCKSTEP_ASSIGN_OR_RETURN(Worker host, Worker::Adopt(0, 1, Device::Cpu()));
  LOCKSTEP_RETURN_IF_ERROR(
      InPieces(filled, [&](const Tensor& exact, const Tensor& there, std::int64_t begin) {
        for (std::int64_t i = 0; i < exact.size(); ++i)
          exact.data<double>()[i] = InputAt(options_.op, worker_.rank(), begin + i);
        return Copy(host, exact, there);
      }));
  return worker_.device().is_cpu() ? absl::OkStatus() : Copy(worker_, filled, tensor);
}

// Sums and copies are exact; an average is right to the last bits of its type.
bool RankBench::IsRight(double found, double expected) const {
  if (!IsFloating(options_.dtype)) expected = std::trunc(expected);
  const bool rounded = Reduces(kind_) && options_.op == ReduceOp::kAverage;
  const double relative = !rounded ? 0 : IsReducedPrecision(options_.dtype) ? 1.0 / 128 : 1e-6;
  return std::abs(found - expected) <= relative * std::abs(expected);
}

}  // namespace lockstep::tools
