// One rank as its own thread sees it: which device, which stream, whose memory.
#ifndef LOCKSTEP_RUNTIME_WORKER_H_
#define LOCKSTEP_RUNTIME_WORKER_H_

#include <cstdint>
#include <memory>

#include "lockstep/runtime/memory_pool.h"
#include "lockstep/runtime/stream.h"
#include "lockstep/runtime/tensor.h"

namespace lockstep {

namespace internal {
/// What the math of one rank keeps on its GPU (runtime/cuda/worker.h).
struct WorkerState;
}  // namespace internal

/// A rank: its number, its device, its stream and its memory. The executor makes one for each of
/// its threads; a host that brings its own threads adopts one on each:
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, Worker::Adopt(rank, world_size, Device::Cpu()));
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({tokens, features}, DType::kFloat32));
///
/// Used by that rank's thread alone; between two Runs of an executor nobody uses its workers. Any
/// thread may read what never changes (rank, world_size, device, stream) and the figures of
/// memory(). Tensors may outlive the worker; on a GPU, a stream given by the host must outlive
/// both. Copies are the same rank, with the same stream and memory.
class Worker {
 public:
  /// On a new stream, or on one that the host gives and keeps alive. kInvalidArgument: rank outside
  /// [0, world_size), a stream of another device, one of a CUDA context that the host created
  /// itself, or cudaStreamPerThread. kUnavailable: a device that this build or machine lacks.
  static absl::StatusOr<Worker> Adopt(int rank, int world_size, Device device);
  static absl::StatusOr<Worker> Adopt(int rank, int world_size, Device device, Stream stream);

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  Device device() const { return stream_.device(); }
  const Stream& stream() const { return stream_; }
  MemoryPool& memory() const { return *memory_; }

  /// Whether float32 products on this worker's GPU may round their inputs to TF32: 10 bits of
  /// mantissa, about 3 decimal digits, in return for speed. Off by default. No effect on the CPU or
  /// on other types. A captured graph keeps the setting of its capture.
  bool allow_tf32() const { return allow_tf32_; }
  void set_allow_tf32(bool allow) { allow_tf32_ = allow; }

  /// Internal; null on the CPU.
  const std::shared_ptr<internal::WorkerState>& state() const { return state_; }

  /// A contiguous tensor in this rank's memory, contents undefined. kInvalidArgument: an impossible
  /// shape. kResourceExhausted: the device has no more memory.
  absl::StatusOr<Tensor> Empty(const Shape& shape, DType dtype) const;
  /// The same, every element 0.
  absl::StatusOr<Tensor> Zeros(const Shape& shape, DType dtype);

 private:
  Worker(int rank, int world_size, Stream stream)
      : rank_(rank), world_size_(world_size), stream_(stream) {}

  int rank_;
  int world_size_;
  Stream stream_;
  bool allow_tf32_ = false;
  // The stream's owner, unless that is the host.
  std::shared_ptr<void> own_stream_;
  std::shared_ptr<MemoryPool> memory_;
  std::shared_ptr<internal::WorkerState> state_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_WORKER_H_
