// A trainable array: its value, its gradient, and which part of the whole this rank holds.
#ifndef LOCKSTEP_LAYERS_PARAMETER_H_
#define LOCKSTEP_LAYERS_PARAMETER_H_

#include <cstdint>
#include <string>

#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

/// The part of an axis that one rank holds: [begin, begin + length).
struct Shard {
  std::int64_t begin;
  std::int64_t length;

  /// Rank r's part of `total`: even, the first `total mod world_size` ranks holding one more. May be empty.
  static Shard Of(std::int64_t total, int rank, int world_size);
};

/// value: [full_shape, but for `shard_axis` where it is `shard.length`], contiguous, of any floating type.
/// gradient: the same shape; float32 for 16-bit values too, so that accumulation loses nothing to rounding.
class Parameter {
 public:
  /// shard_axis of a parameter that every rank holds whole.
  static constexpr int kReplicated = -1;

  /// Zero value and gradient, with this rank's shard of `full_shape` along `shard_axis`.
  static absl::StatusOr<Parameter> Create(Worker& worker, const Communicator& comm, std::string name,
                                          Shape full_shape, int shard_axis, DType dtype);

  const std::string& name() const { return name_; }
  const Tensor& value() const { return value_; }
  const Tensor& gradient() const { return gradient_; }
  const Shape& full_shape() const { return full_shape_; }
  int shard_axis() const { return shard_axis_; }
  /// This rank's part of the sharded axis; of a replicated parameter, the whole first axis.
  Shard shard() const { return shard_; }

  absl::Status ZeroGradient(Worker& worker) const;

  /// Draws the value uniformly in [-bound, bound): the same full value for a seed at every world size.
  absl::Status InitializeUniform(Worker& worker, std::uint64_t seed, float bound) const;
  /// Takes this rank's shard of `full`, which has full_shape, converting the type. No communication.
  absl::Status LoadFull(Worker& worker, const Tensor& full) const;
  /// The full value on every rank: [full_shape]. A collective.
  absl::StatusOr<Tensor> GatherFull(Worker& worker, Communicator& comm) const;
  /// The full gradient on every rank, float32. A collective.
  absl::StatusOr<Tensor> GatherFullGradient(Worker& worker, Communicator& comm) const;

 private:
  Parameter(std::string name, Shape full_shape, int shard_axis, Shard shard, Tensor value, Tensor gradient);
  absl::StatusOr<Tensor> Gather(Worker& worker, Communicator& comm, const Tensor& part) const;

  std::string name_;
  Shape full_shape_;
  int shard_axis_;
  Shard shard_;
  Tensor value_;
  Tensor gradient_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_PARAMETER_H_
