#include "lockstep/runtime/tensor.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

Shape RowMajorStrides(const Shape& shape) {
  Shape strides(shape.size());
  std::uint64_t stride = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = static_cast<std::int64_t>(stride);
    stride *= static_cast<std::uint64_t>(shape[axis]);
  }
  return strides;
}

}  // namespace

std::int64_t internal::Product(absl::Span<const std::int64_t> extents) {
  std::uint64_t product = 1;
  for (const std::int64_t extent : extents) product *= static_cast<std::uint64_t>(extent);
  return static_cast<std::int64_t>(product);
}

std::string ToString(absl::Span<const std::int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<std::int64_t> ContiguousBytes(const Shape& shape, DType dtype) {
  if (static_cast<std::size_t>(dtype) >= std::size(kAllDTypes)) {
    return absl::InvalidArgumentError(absl::StrCat("shape ", ToString(shape), " of ", Name(dtype),
                                                   ", number ", static_cast<int>(dtype),
                                                   "; there are ", std::size(kAllDTypes)));
  }
  auto bytes = static_cast<std::int64_t>(SizeOf(dtype));
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) {
      return absl::InvalidArgumentError(absl::StrCat("shape ", ToString(shape), " has the extent ",
                                                     extent, "; extents are at least 0"));
    }
    // An extent of 0 does not excuse the others.
    empty = empty || extent == 0;
    if (extent > 0 && __builtin_mul_overflow(bytes, extent, &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("shape ", ToString(shape), " of ", Name(dtype),
                                                     " has more bytes than 2^63 - 1"));
    }
  }
  return empty ? 0 : bytes;
}

Tensor::Tensor(std::shared_ptr<void> memory, void* data, Shape shape, DType dtype, Device device)
    : memory_(std::move(memory)),
      data_(data),
      shape_(std::move(shape)),
      strides_(RowMajorStrides(shape_)),
      size_(internal::Product(shape_)),
      dtype_(dtype),
      device_(device) {}

Tensor Tensor::View(void* data, Shape shape, DType dtype, Device device) {
  return Tensor(nullptr, data, std::move(shape), dtype, device);
}

Tensor Tensor::Own(std::shared_ptr<void> memory, Shape shape, DType dtype, Device device) {
  void* const data = memory.get();
  return Tensor(std::move(memory), data, std::move(shape), dtype, device);
}

std::int64_t Tensor::extent(int axis) const {
  if (axis < 0) axis += num_axes();
  return axis >= 0 && axis < num_axes() ? shape_[axis] : -1;
}

bool Tensor::is_contiguous() const {
  std::int64_t expected = 1;
  for (std::size_t axis = shape_.size(); axis-- > 0;) {
    // Where there is one element or none, the stride means nothing.
    if (shape_[axis] == 0) return true;
    if (shape_[axis] != 1 && strides_[axis] != expected) return false;
    expected *= shape_[axis];
  }
  return true;
}

absl::StatusOr<Tensor> Tensor::Slice(int axis, std::int64_t begin, std::int64_t length) const {
  const int counted = axis < 0 ? axis + num_axes() : axis;
  if (counted < 0 || counted >= num_axes()) {
    return absl::InvalidArgumentError(absl::StrCat("slice: axis ", axis, " of ", ToString(),
                                                   ", which has ", num_axes(), " axes"));
  }
  const auto at = static_cast<std::size_t>(counted);
  if (begin < 0 || length < 0 || begin > shape_[at] || length > shape_[at] - begin) {
    return absl::InvalidArgumentError(absl::StrCat("slice: ", length, " elements from ", begin,
                                                   " along axis ", axis, " of ", ToString(),
                                                   "; that axis has ", shape_[at]));
  }
  LOCKSTEP_RETURN_IF_ERROR(ContiguousBytes(shape_, dtype_).status());
  Tensor slice = *this;
  slice.shape_[at] = length;
  slice.size_ = internal::Product(slice.shape_);
  if (data_ != nullptr) {
    slice.data_ = static_cast<char*>(data_) +
                  begin * strides_[at] * static_cast<std::int64_t>(SizeOf(dtype_));
  }
  return slice;
}

absl::StatusOr<Tensor> Tensor::Transpose() const {
  if (num_axes() != 2) {
    return absl::InvalidArgumentError(absl::StrCat("transpose: ", ToString(), ", which has ",
                                                   num_axes(), " axes; it must have 2"));
  }
  Tensor transposed = *this;
  std::swap(transposed.shape_[0], transposed.shape_[1]);
  std::swap(transposed.strides_[0], transposed.strides_[1]);
  return transposed;
}

absl::StatusOr<Tensor> Tensor::Reshape(Shape shape) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t bytes, ContiguousBytes(shape, dtype_));
  if (bytes != size_bytes() || !is_contiguous()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "reshape: ", ToString(), is_contiguous() ? "" : ", which is strided,", " to ",
        lockstep::ToString(shape), "; it takes a contiguous tensor and as many elements"));
  }
  return Tensor(memory_, data_, std::move(shape), dtype_, device_);
}

std::string Tensor::ToString() const {
  return absl::StrCat(Name(dtype_), " ", lockstep::ToString(shape_), " on ", device_.ToString());
}

}  // namespace lockstep
