#include "lockstep/collective/communicator.h"

#include <algorithm>
#include <cstdint>

#include "lockstep/runtime/check_tensors.h"

namespace lockstep {
namespace {

using internal::OutOfMemoryAsStatus;
using internal::Product;

absl::Status SameShape(const CollectiveCall& call, const Tensor& in, const Tensor& out) {
  return internal::CheckAlike(Name(call.kind), "in", in, "out", out, /*any_dtype=*/true);
}

// For operations that split or join along `axis`: all other axes are equal. Counts `axis` from the
// front when it is OK.
absl::Status SameButAxis(absl::string_view what, const Tensor& in, const Tensor& out, int& axis) {
  const int axes = in.num_axes();
  if (axis < -axes || axis >= axes) {
    const std::string right =
        axes == 0 ? "it has none" : absl::StrCat("it must be from ", -axes, " to ", axes - 1);
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": axis ", axis, " of ", in.ToString(), "; ", right));
  }
  if (axis < 0) axis += axes;
  bool same = out.num_axes() == in.num_axes();
  for (int other = 0; same && other < in.num_axes(); ++other) {
    same = other == axis || out.extent(other) == in.extent(other);
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": in is ", in.ToString(), " and out is ",
                                                 out.ToString(), "; they may differ along axis ",
                                                 axis, " alone"));
}

// What all ranks must have alike. Tensors of one axis are told apart by their counts.
void SeeShape(CollectiveCall& call, CallDetails& details, const Shape& shape, int axis = 0) {
  if (shape.size() == 1) return;
  details.shape = shape;
  details.axis = axis;
  call.shape_mix = MixShape(shape, axis);
  call.details = &details;
}

// Sees both tensors as [outer, width], where width holds `axis` and all after it. Only once their
// shapes are checked.
void SeeAlongAxis(CollectiveCall& call, CallDetails& details, const Tensor& in, const Tensor& out,
                  int axis) {
  const bool gathers = call.kind == CollectiveKind::kAllGather;
  const auto before = static_cast<std::size_t>(axis);
  call.outer = Product(absl::MakeConstSpan(in.shape()).first(before));
  call.in_width = Product(absl::MakeConstSpan(in.shape()).subspan(before));
  call.out_width = Product(absl::MakeConstSpan(out.shape()).subspan(before));
  details.part = (gathers ? in : out).extent(axis);
  SeeShape(call, details, (gathers ? out : in).shape(), axis);
}

absl::Status CheckCounts(absl::string_view which, absl::Span<const std::int64_t> counts,
                         const Tensor& tensor, int world_size) {
  if (counts.empty()) {
    if (tensor.size() % world_size == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("all_to_all: ", tensor.size(),
                                                   " elements do not divide into ", world_size,
                                                   " equal parts; give ", which, "_counts"));
  }
  if (counts.size() != static_cast<std::size_t>(world_size)) {
    return absl::InvalidArgumentError(absl::StrCat("all_to_all: ", counts.size(), " ", which,
                                                   "_counts for ", world_size,
                                                   " ranks; one per rank is needed"));
  }
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) {
    if (count < 0 || __builtin_add_overflow(sum, count, &sum)) sum = INT64_MIN;
    if (sum < 0) break;
  }
  if (sum == tensor.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("all_to_all: ", which,
                                                 "_counts must be at least 0 and add up to the ",
                                                 tensor.size(), " elements of the tensor"));
}

absl::Status CheckTensor(absl::string_view what, absl::string_view which, const Tensor& tensor,
                         Device device) {
  const absl::StatusOr<std::int64_t> bytes = ContiguousBytes(tensor.shape(), tensor.dtype());
  if (!bytes.ok()) return bytes.status();
  const auto wrong = [&](absl::string_view found, absl::string_view right) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", which, ", ", tensor.ToString(), ", ", found, "; ", right));
  };
  if (tensor.device() != device) {
    return wrong("is on another device than this rank",
                 absl::StrCat("it must be on ", device.ToString()));
  }
  if (!tensor.is_contiguous()) return wrong("is strided", "copy it to a contiguous tensor first");
  if (*bytes > 0 && tensor.raw_data() == nullptr)
    return wrong("has a null pointer", "give it memory");
  if (reinterpret_cast<std::uintptr_t>(tensor.raw_data()) % SizeOf(tensor.dtype()) != 0) {
    return wrong("is misaligned", absl::StrCat("its address must be a multiple of ",
                                               SizeOf(tensor.dtype()), " bytes"));
  }
  return absl::OkStatus();
}

bool Overlap(const Tensor& a, const Tensor& b) {
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.raw_data());
  const auto b_begin = reinterpret_cast<std::uintptr_t>(b.raw_data());
  return a_begin < b_begin + static_cast<std::uintptr_t>(b.size_bytes()) &&
         b_begin < a_begin + static_cast<std::uintptr_t>(a.size_bytes());
}

// In a call, where no rank and no number of multiprocessors is larger.
std::int16_t Fitting(int value) {
  return static_cast<std::int16_t>(std::clamp(value, -1, int{INT16_MAX}));
}

}  // namespace

absl::Status Communicator::AllReduce(const Tensor& in, const Tensor& out, ReduceOp op) {
  CollectiveCall call{
      .kind = CollectiveKind::kAllReduce, .op = op, .in_width = in.size(), .out_width = out.size()};
  CallDetails details;
  SeeShape(call, details, in.shape());
  return CheckAndExecute(call, in, out, [&] { return SameShape(call, in, out); });
}

absl::Status Communicator::ReduceScatter(const Tensor& in, const Tensor& out, ReduceOp op,
                                         int axis) {
  return AlongAxis({.kind = CollectiveKind::kReduceScatter, .op = op}, in, out, axis);
}

absl::Status Communicator::AllGather(const Tensor& in, const Tensor& out, int axis) {
  return AlongAxis({.kind = CollectiveKind::kAllGather}, in, out, axis);
}

absl::Status Communicator::AlongAxis(CollectiveCall call, const Tensor& in, const Tensor& out,
                                     int axis) {
  CallDetails details;
  return CheckAndExecute(call, in, out, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(SameButAxis(Name(call.kind), in, out, axis));
    SeeAlongAxis(call, details, in, out, axis);
    return absl::OkStatus();
  });
}

absl::Status Communicator::Broadcast(const Tensor& in, const Tensor& out, int root) {
  CollectiveCall call{.kind = CollectiveKind::kBroadcast,
                      .root = Fitting(root),
                      .in_width = in.size(),
                      .out_width = out.size()};
  CallDetails details;
  SeeShape(call, details, in.shape());
  return CheckAndExecute(call, in, out, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(SameShape(call, in, out));
    if (root >= 0 && root < world_size_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("broadcast: root ", root, " in a group of ",
                                                   world_size_, "; it must be from 0 to ",
                                                   world_size_ - 1));
  });
}

absl::Status Communicator::AllToAll(const Tensor& in, const Tensor& out,
                                    absl::Span<const std::int64_t> send_counts,
                                    absl::Span<const std::int64_t> receive_counts) {
  CollectiveCall call{
      .kind = CollectiveKind::kAllToAll, .in_width = in.size(), .out_width = out.size()};
  const CallDetails details{
      .send_counts = send_counts.empty() ? nullptr : send_counts.data(),
      .receive_counts = receive_counts.empty() ? nullptr : receive_counts.data()};
  const bool uneven = !send_counts.empty() || !receive_counts.empty();
  if (uneven) call.details = &details;
  return CheckAndExecute(call, in, out, [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(CheckCounts("send", send_counts, in, world_size_));
    LOCKSTEP_RETURN_IF_ERROR(CheckCounts("receive", receive_counts, out, world_size_));
    if (!uneven || in.size() == 0 || in.raw_data() != out.raw_data()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "all_to_all: in and out are one tensor, and counts are given; give out memory of its own");
  });
}

absl::StatusOr<PendingCollective> Communicator::AllReduceAsync(const Tensor& in, const Tensor& out,
                                                               ReduceOp op, AsyncOptions options) {
  return Aside(in, out, options, [&] { return AllReduce(in, out, op); });
}

absl::StatusOr<PendingCollective> Communicator::ReduceScatterAsync(const Tensor& in,
                                                                   const Tensor& out, ReduceOp op,
                                                                   int axis) {
  return Aside(in, out, {}, [&] { return ReduceScatter(in, out, op, axis); });
}

absl::StatusOr<PendingCollective> Communicator::AllGatherAsync(const Tensor& in, const Tensor& out,
                                                               int axis) {
  return Aside(in, out, {}, [&] { return AllGather(in, out, axis); });
}

absl::StatusOr<PendingCollective> Communicator::BroadcastAsync(const Tensor& in, const Tensor& out,
                                                               int root) {
  return Aside(in, out, {}, [&] { return Broadcast(in, out, root); });
}

absl::StatusOr<PendingCollective> Communicator::AllToAllAsync(
    const Tensor& in, const Tensor& out, absl::Span<const std::int64_t> send_counts,
    absl::Span<const std::int64_t> receive_counts) {
  return Aside(in, out, {}, [&] { return AllToAll(in, out, send_counts, receive_counts); });
}

absl::StatusOr<PendingCollective> Communicator::Aside(const Tensor& in, const Tensor& out,
                                                      AsyncOptions options,
                                                      absl::FunctionRef<absl::Status()> call) {
  aside_ = options;
  LOCKSTEP_RETURN_IF_ERROR(call());
  return OutOfMemoryAsStatus(
      [&]() -> absl::StatusOr<PendingCollective> { return PendingCollective(*this, in, out); });
}

absl::Status PendingCollective::Wait() {
  if (comm_ == nullptr) return absl::OkStatus();
  return std::exchange(comm_, nullptr)->JoinSideStream();
}

PendingCollective& PendingCollective::operator=(PendingCollective&& other) noexcept {
  Wait().IgnoreError();
  comm_ = std::exchange(other.comm_, nullptr);
  in_ = other.in_;
  out_ = other.out_;
  return *this;
}

absl::Status Communicator::Barrier() { return Execute({.kind = CollectiveKind::kBarrier}); }

absl::Status Communicator::CheckTensors(const CollectiveCall& call, const Tensor& in,
                                        const Tensor& out) const {
  const absl::string_view what = Name(call.kind);
  LOCKSTEP_RETURN_IF_ERROR(CheckTensor(what, "in", in, device_));
  LOCKSTEP_RETURN_IF_ERROR(CheckTensor(what, "out", out, device_));
  if (in.dtype() != out.dtype()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": in is ", in.ToString(), " and out is ",
                                                   out.ToString(),
                                                   "; they must have one element type"));
  }
  // Whether a part lies where it may is known when the other ranks' parts are.
  const bool same = in.raw_data() == out.raw_data() && in.size() == out.size();
  if (!HasParts(call.kind) && !same && Overlap(in, out)) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": in and out, ", in.ToString(),
                                                   ", overlap partly, ",
                                                   "they must be one tensor or apart"));
  }
  return absl::OkStatus();
}

absl::Status Communicator::CheckAndExecute(CollectiveCall& call, const Tensor& in,
                                           const Tensor& out,
                                           absl::FunctionRef<absl::Status()> check) {
  const std::optional<AsyncOptions> options = std::exchange(aside_, std::nullopt);
  if (options.has_value()) {
    call.aside = true;
    call.max_multiprocessors = Fitting(options->max_multiprocessors);
  }
  call.dtype = in.dtype();
  call.in = in.raw_data();
  call.out = out.raw_data();
  absl::Status right = OutOfMemoryAsStatus([&]() -> absl::Status {
    if (call.max_multiprocessors < 0) {
      return absl::InvalidArgumentError(absl::StrCat(Name(call.kind), ": max_multiprocessors is ",
                                                     options->max_multiprocessors,
                                                     "; it must be at least 0"));
    }
    LOCKSTEP_RETURN_IF_ERROR(check());
    return CheckTensors(call, in, out);
  });
  return right.ok() ? Execute(call) : Refuse(call, std::move(right));
}

}  // namespace lockstep
