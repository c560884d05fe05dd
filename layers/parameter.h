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

  /// Rank r's part of `total`, 0 <= rank < world_size: even, the first `total mod world_size` ranks
  /// holding one more. May be empty.
  static Shard Of(std::int64_t total, int rank, int world_size);

  friend bool operator==(const Shard&, const Shard&) = default;
};

/// What a layer's Backward does with its parameters' gradients.
struct BackwardOptions {
  /// Adds to them, as the second and later passes of a step must. Without, it writes over whatever
  /// is there, which need not be zero then, and saves reading it.
  bool accumulate = true;
};

/// An array of which each rank of a group holds its shard, or all the whole.
///
///   value:    [full_shape, but for `shard_axis` where it is `shard.length`], contiguous, floating
///   gradient: the same shape; float64 for float64 values, else float32, so that accumulation loses
///             nothing to 16-bit rounding
///
///   const Shape full_shape = {in_features, out_features};
///   LOCKSTEP_ASSIGN_OR_RETURN(auto weight, Parameter::Create(worker, comm, "weight", full_shape,
///                                                            /*shard_axis=*/1, dtype));
///   LOCKSTEP_RETURN_IF_ERROR(weight.LoadFull(worker, checkpoint));  // takes this rank's columns
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, weight.GatherFull(worker, comm));  // on every rank
///
/// A handle, as Tensor is: copies share the value and the gradient. Used by the rank's thread
/// alone.
class Parameter {
 public:
  /// shard_axis of a parameter that every rank holds whole.
  static constexpr int kReplicated = -1;

  /// Zero value and gradient, with this rank's shard of `full_shape` along `shard_axis`; the ranks
  /// are those of `comm`. kInvalidArgument: no axes, no such axis, a negative extent, or a type
  /// that is not floating.
  static absl::StatusOr<Parameter> Create(Worker& worker, const Communicator& comm,
                                          std::string name, Shape full_shape, int shard_axis,
                                          DType dtype);
  /// Held whole by a rank that needs no group.
  static absl::StatusOr<Parameter> Create(Worker& worker, std::string name, Shape shape,
                                          DType dtype);

  const std::string& name() const { return name_; }
  const Tensor& value() const { return value_; }
  const Tensor& gradient() const { return gradient_; }
  const Shape& full_shape() const { return full_shape_; }
  int shard_axis() const { return shard_axis_; }
  /// This rank's part of the sharded axis; of a replicated parameter, the whole first axis.
  Shard shard() const { return shard_; }

  absl::Status ZeroGradient(Worker& worker) const;

  /// Draws the value uniformly in [-bound, bound): the same full value for a seed at every world
  /// size. No communication.
  absl::Status InitializeUniform(Worker& worker, std::uint64_t seed, float bound) const;
  /// Takes this rank's shard of `full`, which has full_shape, converting the type. No
  /// communication. kInvalidArgument: another shape.
  absl::Status LoadFull(Worker& worker, const Tensor& full) const;
  /// The full value on every rank, in new memory: [full_shape]. A collective unless replicated.
  /// kInvalidArgument: `comm` deals the axis otherwise than the group the parameter was created
  /// for.
  absl::StatusOr<Tensor> GatherFull(Worker& worker, Communicator& comm) const;
  /// The same of the gradient.
  absl::StatusOr<Tensor> GatherFullGradient(Worker& worker, Communicator& comm) const;

 private:
  Parameter(std::string name, Shape full_shape, int shard_axis, Shard shard, Tensor value,
            Tensor gradient);
  static absl::StatusOr<Parameter> CreateShard(Worker& worker, std::string name, Shape full_shape,
                                               int shard_axis, DType dtype, int rank,
                                               int world_size);
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
