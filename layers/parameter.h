// A trainable array: its value, its gradient, and which part of the whole this rank holds.
#ifndef LOCKSTEP_LAYERS_PARAMETER_H_
#define LOCKSTEP_LAYERS_PARAMETER_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

/// The part of an axis that one rank holds: [begin, begin + length).
struct Shard {
  std::int64_t begin;
  std::int64_t length;

  /// The part of `total` that belongs to `rank`: equal parts, of which the first
  /// `total mod world_size` are longer by one. May be empty, and is for a rank outside
  /// [0, world_size).
  static Shard Of(std::int64_t total, int rank, int world_size);

  friend bool operator==(const Shard&, const Shard&) = default;
};

/// How a matrix that is to be loaded is laid out. A square one fits both ways, so only the writer
/// of the file can tell.
enum class Orientation : unsigned char {
  kInOut,  // the parameter's own, as in this library: [in_features, out_features]
  kOutIn,  // its transpose, as PyTorch's nn.Linear stores it: [out_features, in_features]
};

/// What a layer's Backward does with its parameters' gradients. The same on every rank.
struct BackwardOptions {
  /// True: adds to them, as the second and later passes of a step must. False: overwrites them,
  /// whatever they hold, which saves reading them.
  bool accumulate = true;
};

/// An array of which each rank of a group holds a shard, or every rank the whole.
///
///   value:    [full_shape, but for `shard_axis` where it is `shard.length`], contiguous, floating
///   gradient: the same shape; float64 for float64 values, else float32, so that accumulation loses
///             nothing to 16-bit rounding
///
///   const Shape full_shape = {in_features, out_features};
///   LOCKSTEP_ASSIGN_OR_RETURN(auto weight, Parameter::Create(worker, comm, "weight", full_shape,
///                                                            /*shard_axis=*/1, dtype));
///   LOCKSTEP_RETURN_IF_ERROR(weight.LoadFull(worker, file, Orientation::kOutIn));  // its columns
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, weight.GatherFull(worker, comm));  // on every rank
///
/// A handle, as Tensor is: copies share the value and the gradient. Used by the rank's thread
/// alone.
class Parameter {
 public:
  /// shard_axis of a parameter that every rank holds whole.
  static constexpr int kReplicated = -1;

  /// With value and gradient zero, and this rank's shard of `full_shape` along `shard_axis`, split
  /// over the ranks of `comm`. A collective. kInvalidArgument: no axes, no such axis, a negative
  /// extent, or a type that is not floating; the group fails (see Communicator::Fail).
  /// kFailedPrecondition, on every rank: the ranks give different names, shapes, axes or types; the
  /// group goes on.
  static absl::StatusOr<Parameter> Create(Worker& worker, Communicator& comm, std::string name,
                                          Shape full_shape, int shard_axis, DType dtype);
  /// Held whole, by a rank without a group.
  static absl::StatusOr<Parameter> Create(Worker& worker, std::string name, Shape shape,
                                          DType dtype);

  const std::string& name() const { return name_; }
  const Tensor& value() const { return value_; }
  const Tensor& gradient() const { return gradient_; }
  const Shape& full_shape() const { return full_shape_; }
  int shard_axis() const { return shard_axis_; }
  /// This rank's part of the sharded axis; for a replicated parameter, the whole first axis.
  Shard shard() const { return shard_; }

  absl::Status ZeroGradient(Worker& worker) const;

  /// Draws the value uniformly from [-bound, bound): for one seed, the same full value at every
  /// world size. No communication: seed and bound must be the same on every rank.
  absl::Status InitializeUniform(Worker& worker, std::uint64_t seed, float bound) const;
  /// Takes this rank's shard of `full`, converting the type. No communication: the ranks' values of
  /// a replicated parameter are equal if what they load is.
  /// full: [full_shape], or its transpose with kOutIn, which takes two axes; on the worker's device
  /// or the CPU. kInvalidArgument: another shape.
  absl::Status LoadFull(Worker& worker, const Tensor& full,
                        Orientation orientation = Orientation::kInOut) const;
  /// The same for a rank that has read its own shard alone.
  /// part: like value(), or its transpose with kOutIn; of any type, on the worker's device or
  /// the CPU. kInvalidArgument: another shape.
  absl::Status LoadShard(Worker& worker, const Tensor& part, Orientation orientation) const;
  /// The full value on every rank, in new memory: [full_shape]. A collective unless replicated.
  /// kInvalidArgument: `comm` splits the axis otherwise than the group that the parameter was
  /// created for. An error on one rank fails the group.
  absl::StatusOr<Tensor> GatherFull(Worker& worker, Communicator& comm) const;
  /// The same for the gradient.
  absl::StatusOr<Tensor> GatherFullGradient(Worker& worker, Communicator& comm) const;

 private:
  // Their ranks have compared already what CreateShard needs.
  friend class ColumnParallelLinear;
  friend class RowParallelLinear;

  Parameter(std::string name, Shape full_shape, int shard_axis, Shard shard, Tensor value,
            Tensor gradient);
  static absl::StatusOr<Parameter> CreateShard(Worker& worker, std::string name, Shape full_shape,
                                               int shard_axis, DType dtype, int rank,
                                               int world_size);
  // `given`, whose shape turned the right way round must be `shape`, seen that way.
  absl::StatusOr<Tensor> Oriented(absl::string_view call, const Tensor& given,
                                  Orientation orientation, const Shape& shape) const;
  absl::Status CheckGroup(const Communicator& comm) const;
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
