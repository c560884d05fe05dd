#include "lockstep/runtime/worker.h"

#include <cstring>

#include "lockstep/runtime/cuda/device.h"
#include "lockstep/runtime/cuda/stream.h"
#include "lockstep/runtime/cuda/worker.h"

namespace lockstep {

absl::StatusOr<Worker> Worker::Adopt(int rank, int world_size, Device device) {
  if (device.is_cpu()) return Adopt(rank, world_size, device, Stream());
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::CheckDevice(device));
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<void> stream, internal::cuda::MakeStream(device));
  LOCKSTEP_ASSIGN_OR_RETURN(Worker worker,
                            Adopt(rank, world_size, device, Stream(device, stream.get())));
  worker.own_stream_ = std::move(stream);
  return worker;
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
  if (!device.is_cpu()) LOCKSTEP_RETURN_IF_ERROR(internal::cuda::CheckStream(stream));
  Worker worker(rank, world_size, stream);
  LOCKSTEP_ASSIGN_OR_RETURN(worker.memory_, MemoryPool::Create(stream));
  if (!device.is_cpu()) {
    LOCKSTEP_ASSIGN_OR_RETURN(worker.state_, internal::cuda::MakeWorkerState(stream));
  }
  return worker;
}

absl::StatusOr<Tensor> Worker::Empty(const Shape& shape, DType dtype) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t bytes, ContiguousBytes(shape, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(std::shared_ptr<void> memory, memory_->Allocate(bytes));
  return Tensor::Own(std::move(memory), shape, dtype, device());
}

absl::StatusOr<Tensor> Worker::Zeros(const Shape& shape, DType dtype) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, Empty(shape, dtype));
  // A 0 of any type is bytes of 0.
  if (device().is_cpu()) {
    std::memset(tensor.raw_data(), 0, static_cast<std::size_t>(tensor.size_bytes()));
  } else {
    LOCKSTEP_RETURN_IF_ERROR(
        internal::cuda::QueueZeros(stream_, tensor.raw_data(), tensor.size_bytes()));
  }
  return tensor;
}

}  // namespace lockstep
