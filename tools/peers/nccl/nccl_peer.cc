#include "lockstep/tools/peers/nccl/nccl_peer.h"

#include <nccl.h>
#include <stdlib.h>

#include <vector>

namespace lockstep::tools {
namespace {

#define LOCKSTEP_RETURN_IF_NCCL_ERROR(...) \
  LOCKSTEP_RETURN_IF_ERROR(NcclStatus((__VA_ARGS__), #__VA_ARGS__))

absl::Status NcclStatus(ncclResult_t result, absl::string_view call) {
  if (result == ncclSuccess) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(call.substr(0, call.find('(')), ": ",
                                             ncclGetErrorString(result), ": ",
                                             ncclGetLastError(nullptr)));
}

ncclDataType_t NativeType(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return ncclFloat32;
    case DType::kFloat16:
      return ncclFloat16;
    case DType::kBFloat16:
      return ncclBfloat16;
    case DType::kFloat64:
      return ncclFloat64;
    case DType::kInt32:
      return ncclInt32;
    case DType::kInt64:
      return ncclInt64;
  }
  return ncclFloat32;
}

ncclRedOp_t NativeOp(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kAverage:
      return ncclAvg;
    case ReduceOp::kProduct:
      return ncclProd;
    case ReduceOp::kMin:
      return ncclMin;
    case ReduceOp::kMax:
      return ncclMax;
  }
  return ncclSum;
}

// Registered with every rank's communicator at the same place; the window goes before the memory.
struct SymmetricMemory {
  ncclComm_t comm = nullptr;
  void* data = nullptr;
  ncclWindow_t window = nullptr;

  SymmetricMemory() = default;
  SymmetricMemory(const SymmetricMemory&) = delete;
  SymmetricMemory& operator=(const SymmetricMemory&) = delete;
  ~SymmetricMemory() {
    if (window != nullptr) ncclCommWindowDeregister(comm, window);
    if (data != nullptr) ncclMemFree(data);
  }
};

class NcclRanks final : public NcclPeer {
 public:
  NcclRanks(int world_size, bool symmetric)
      : symmetric_(symmetric), comms_(static_cast<std::size_t>(world_size)) {}
  ~NcclRanks() override {
    for (const ncclComm_t comm : comms_) {
      if (comm != nullptr) ncclCommDestroy(comm);
    }
  }

  absl::Status Connect(Executor& executor) {
    ncclUniqueId id;
    LOCKSTEP_RETURN_IF_NCCL_ERROR(ncclGetUniqueId(&id));
    return executor.Run([&](Worker& worker) -> absl::Status {
      LOCKSTEP_RETURN_IF_NCCL_ERROR(
          ncclCommInitRank(&comms_[worker.rank()], worker.world_size(), id, worker.rank()));
      return absl::OkStatus();
    });
  }

  absl::StatusOr<Tensor> Empty(Worker& worker, std::int64_t count, DType dtype) override {
    if (!symmetric_ || count == 0) return worker.Empty({count}, dtype);
    const auto bytes = static_cast<std::size_t>(count) * SizeOf(dtype);
    auto memory = std::make_shared<SymmetricMemory>();
    memory->comm = comms_[worker.rank()];
    LOCKSTEP_RETURN_IF_NCCL_ERROR(ncclMemAlloc(&memory->data, bytes));
    LOCKSTEP_RETURN_IF_NCCL_ERROR(ncclCommWindowRegister(memory->comm, memory->data, bytes,
                                                         &memory->window, NCCL_WIN_COLL_SYMMETRIC));
    return Tensor::Own(std::shared_ptr<void>(memory, memory->data), {count}, dtype,
                       worker.device());
  }

  absl::Status Queue(Worker& worker, CollectiveKind kind, ReduceOp op, const Tensor& in,
                     const Tensor& out) override {
    LOCKSTEP_RETURN_IF_NCCL_ERROR(Call(worker, kind, op, in, out));
    return absl::OkStatus();
  }

 private:
  ncclResult_t Call(const Worker& worker, CollectiveKind kind, ReduceOp op, const Tensor& in,
                    const Tensor& out) {
    const ncclComm_t comm = comms_[worker.rank()];
    const auto stream = static_cast<cudaStream_t>(worker.stream().native());
    const ncclDataType_t type = NativeType(in.dtype());
    const auto in_count = static_cast<std::size_t>(in.size());
    const auto out_count = static_cast<std::size_t>(out.size());
    const void* const from = in.raw_data();
    void* const to = out.raw_data();
    switch (kind) {
      case CollectiveKind::kAllReduce:
        return ncclAllReduce(from, to, in_count, type, NativeOp(op), comm, stream);
      case CollectiveKind::kReduceScatter:
        return ncclReduceScatter(from, to, out_count, type, NativeOp(op), comm, stream);
      case CollectiveKind::kAllGather:
        return ncclAllGather(from, to, in_count, type, comm, stream);
      case CollectiveKind::kBroadcast:
        return ncclBroadcast(from, to, in_count, type, /*root=*/0, comm, stream);
      case CollectiveKind::kAllToAll:
        return ncclAlltoAll(from, to, in_count / comms_.size(), type, comm, stream);
      default:
        return ncclInvalidArgument;
    }
  }

  const bool symmetric_;
  std::vector<ncclComm_t> comms_;
};

}  // namespace

std::string NcclVersion() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "of unknown version";
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<std::unique_ptr<NcclPeer>> NcclPeer::Create(Executor& executor, bool symmetric) {
  for (const Device& device : executor.rank_devices()) {
    if (device.is_cpu()) {
      return absl::InvalidArgumentError("--peer: these ranks are on the CPU, and NCCL is for GPUs");
    }
  }
  // The comparison is without NVLink multicast on either side, whatever the environment says.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/1);
  auto peer = std::make_unique<NcclRanks>(executor.world_size(), symmetric);
  LOCKSTEP_RETURN_IF_ERROR(peer->Connect(executor));
  return peer;
}

}  // namespace lockstep::tools
