#include "lockstep/runtime/worker.h"

#include <cstring>

namespace lockstep {

absl::StatusOr<Worker> Worker::Adopt(int rank, int world_size, Device device) {
  return Adopt(rank, world_size, device, Stream(device, nullptr));
}

absl::StatusOr<Worker> Worker::Adopt(int rank, int world_size, Device device, Stream stream) {
  if (rank < 0 || rank >= world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker: rank ", rank, " of ", world_size,
                     "; a rank is from 0 to the number of ranks less one"));
  }
  if (stream.device() != device) {
    return absl::InvalidArgumentError(absl::StrCat("worker: rank ", rank, " is on ",
                                                   device.ToString(), ", but its stream is of ",
                                                   stream.device().ToString()));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<MemoryPool> memory, MemoryPool::Create(device));
  return Worker(rank, world_size, stream, std::move(memory));
}

absl::StatusOr<Tensor> Worker::Empty(const Shape& shape, DType dtype) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t bytes, ContiguousBytes(shape, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<void> memory, memory_->Allocate(bytes));
  return Tensor::Own(std::move(memory), shape, dtype, device());
}

absl::StatusOr<Tensor> Worker::Zeros(const Shape& shape, DType dtype) const {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, Empty(shape, dtype));
  std::memset(tensor.raw_data(), 0, static_cast<std::size_t>(tensor.size_bytes()));
  return tensor;
}

}  // namespace lockstep
