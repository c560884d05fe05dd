#include "lockstep/layers/parameter.h"

#include <algorithm>

#include "lockstep/layers/peers.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/random.h"

namespace lockstep {
namespace {

absl::Status CheckParameter(absl::string_view name, const Shape& full_shape, int shard_axis,
                            DType dtype) {
  const int num_axes = static_cast<int>(full_shape.size());
  if (num_axes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", name, ": shape [] has 0 axes; at least 1 is needed"));
  }
  if (shard_axis < Parameter::kReplicated || shard_axis >= num_axes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter ", name, ": shard_axis ", shard_axis, " of shape ", ToString(full_shape),
        "; it must be from 0 to ", num_axes - 1, ", or kReplicated (-1)"));
  }
  if (!IsFloating(dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", name, ": type ", Name(dtype), "; it must be a floating type"));
  }
  // The full size must be sound too, for the day it is gathered.
  return ContiguousBytes(full_shape, dtype).status();
}

std::int64_t Product(const Shape& shape, int begin, int end) {
  std::int64_t product = 1;
  for (int axis = begin; axis < end; ++axis) product *= shape[axis];
  return product;
}

DType GradientType(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

std::string ToString(const Shard& shard) {
  return absl::StrCat("[", shard.begin, ", ", shard.begin + shard.length, ")");
}

}  // namespace

Shard Shard::Of(std::int64_t total, int rank, int world_size) {
  if (rank < 0 || rank >= world_size) return {.begin = 0, .length = 0};
  const std::int64_t even = total / world_size;
  const std::int64_t num_longer = total % world_size;
  return {.begin = rank * even + std::min<std::int64_t>(rank, num_longer),
          .length = even + (rank < num_longer ? 1 : 0)};
}

Parameter::Parameter(std::string name, Shape full_shape, int shard_axis, Shard shard, Tensor value,
                     Tensor gradient)
    : name_(std::move(name)),
      full_shape_(std::move(full_shape)),
      shard_axis_(shard_axis),
      shard_(shard),
      value_(std::move(value)),
      gradient_(std::move(gradient)) {}

absl::StatusOr<Parameter> Parameter::Create(Worker& worker, Communicator& comm, std::string name,
                                            Shape full_shape, int shard_axis, DType dtype) {
  LOCKSTEP_RETURN_IF_ERROR(comm.Fail(CheckParameter(name, full_shape, shard_axis, dtype)));
  LOCKSTEP_RETURN_IF_ERROR(
      internal::CompareAcrossRanks(worker, comm, absl::StrCat("parameter ", name),
                                   {{"full_shape", lockstep::ToString(full_shape)},
                                    {"shard_axis", absl::StrCat(shard_axis)},
                                    {"dtype", std::string(Name(dtype))}}));
  return internal::Alone(comm, [&] {
    return CreateShard(worker, std::move(name), std::move(full_shape), shard_axis, dtype,
                       comm.rank(), comm.world_size());
  });
}

absl::StatusOr<Parameter> Parameter::Create(Worker& worker, std::string name, Shape shape,
                                            DType dtype) {
  return CreateShard(worker, std::move(name), std::move(shape), kReplicated, dtype, /*rank=*/0,
                     /*world_size=*/1);
}

absl::StatusOr<Parameter> Parameter::CreateShard(Worker& worker, std::string name, Shape full_shape,
                                                 int shard_axis, DType dtype, int rank,
                                                 int world_size) {
  LOCKSTEP_RETURN_IF_ERROR(CheckParameter(name, full_shape, shard_axis, dtype));
  Shape shape = full_shape;
  Shard shard{.begin = 0, .length = full_shape.front()};
  if (shard_axis != kReplicated) {
    std::int64_t& extent = shape[shard_axis];
    shard = Shard::Of(extent, rank, world_size);
    extent = shard.length;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor value, worker.Zeros(shape, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor gradient, worker.Zeros(shape, GradientType(dtype)));
  return Parameter(std::move(name), std::move(full_shape), shard_axis, shard, std::move(value),
                   std::move(gradient));
}

absl::Status Parameter::ZeroGradient(Worker& worker) const { return Fill(worker, 0.0, gradient_); }

absl::Status Parameter::InitializeUniform(Worker& worker, std::uint64_t seed, float bound) const {
  // Seen as [before the axis, the axis and all after it], a shard of any axis is a block of
  // columns.
  const int axis = std::max(shard_axis_, 0);
  const int num_axes = static_cast<int>(full_shape_.size());
  const std::int64_t rows = Product(full_shape_, 0, axis);
  const std::int64_t stride = Product(full_shape_, axis + 1, num_axes);
  const std::int64_t full_columns = Product(full_shape_, axis, num_axes);
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor block, value_.Reshape({rows, shard_.length * stride}));
  return FillUniformBlock(worker, seed, bound, /*first_row=*/0, shard_.begin * stride, full_columns,
                          block);
}

absl::Status Parameter::LoadFull(Worker& worker, const Tensor& full,
                                 Orientation orientation) const {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, Oriented("LoadFull", full, orientation, full_shape_));
  if (shard_axis_ != kReplicated) {
    LOCKSTEP_ASSIGN_OR_RETURN(part, part.Slice(shard_axis_, shard_.begin, shard_.length));
  }
  return Copy(worker, part, value_);
}

absl::Status Parameter::LoadShard(Worker& worker, const Tensor& part,
                                  Orientation orientation) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor turned,
                            Oriented("LoadShard", part, orientation, value_.shape()));
  return Copy(worker, turned, value_);
}

absl::StatusOr<Tensor> Parameter::Oriented(absl::string_view call, const Tensor& given,
                                           Orientation orientation, const Shape& shape) const {
  const bool turns = orientation == Orientation::kOutIn;
  const auto refuse = [&](absl::string_view reason) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter ", name_, ": ", call, " of ", given.ToString(), " as ",
                     turns ? "kOutIn" : "kInOut", ", but ",
                     shape == full_shape_ ? "its full shape" : "this rank's part", " is ",
                     lockstep::ToString(shape), "; ", reason));
  };
  if (turns && shape.size() != 2) return refuse("kOutIn is for two axes, give it as kInOut");
  Shape expected = shape;
  if (turns) std::swap(expected[0], expected[1]);
  if (given.shape() == expected) return turns ? given.Transpose() : given;
  const bool fits_turned = shape.size() == 2 && given.shape() == Shape{expected[1], expected[0]};
  return refuse(absl::StrCat("it must be ", lockstep::ToString(expected),
                             fits_turned ? ", or be given as " : "",
                             !fits_turned ? ""
                             : turns      ? "kInOut"
                                          : "kOutIn"));
}

absl::StatusOr<Tensor> Parameter::GatherFull(Worker& worker, Communicator& comm) const {
  return Gather(worker, comm, value_);
}

absl::StatusOr<Tensor> Parameter::GatherFullGradient(Worker& worker, Communicator& comm) const {
  return Gather(worker, comm, gradient_);
}

absl::StatusOr<Tensor> Parameter::Gather(Worker& worker, Communicator& comm,
                                         const Tensor& part) const {
  Tensor full;
  LOCKSTEP_RETURN_IF_ERROR(internal::Alone(comm, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(CheckGroup(comm));
    LOCKSTEP_ASSIGN_OR_RETURN(full, worker.Empty(full_shape_, part.dtype()));
    return shard_axis_ == kReplicated ? Copy(worker, part, full) : absl::OkStatus();
  }));
  if (shard_axis_ != kReplicated) {
    LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part, full, shard_axis_));
  }
  return full;
}

absl::Status Parameter::CheckGroup(const Communicator& comm) const {
  if (shard_axis_ == kReplicated) return absl::OkStatus();
  // A group of as many ranks in another order would gather without an error, and in the wrong
  // order.
  const std::int64_t extent = full_shape_[shard_axis_];
  const Shard expected = Shard::Of(extent, comm.rank(), comm.world_size());
  if (expected == shard_) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "parameter ", name_, ": gathered as rank ", comm.rank(), " of ", comm.world_size(),
      ", which would hold ", ToString(expected), " of axis ", shard_axis_, ", but it holds ",
      ToString(shard_), "; gather over the group it was created for"));
}

}  // namespace lockstep
