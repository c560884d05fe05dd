// An array of numbers in one device's memory.
#ifndef LOCKSTEP_RUNTIME_TENSOR_H_
#define LOCKSTEP_RUNTIME_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "lockstep/runtime/device.h"
#include "lockstep/runtime/dtype.h"

namespace lockstep {

/// Extents, outermost first. Up to four are stored without an allocation.
using Shape = absl::InlinedVector<std::int64_t, 4>;

namespace internal {
/// Wraps around rather than overflows: absurd extents are for ContiguousBytes to refuse.
std::int64_t Product(absl::Span<const std::int64_t> extents);
}  // namespace internal

/// "[2, 3]".
std::string ToString(absl::Span<const std::int64_t> shape);

/// The bytes of a contiguous tensor. kInvalidArgument: a negative extent, a product that does not
/// fit in int64, or a value outside DType.
absl::StatusOr<std::int64_t> ContiguousBytes(const Shape& shape, DType dtype);

/// A handle to a row-major array: shape, strides, element type, device and memory. Copies and
/// slices share the memory; the last owner frees it, and a view of foreign memory frees nothing.
/// Constness is the handle's, not the elements': functions take `const Tensor&` for outputs too.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({8, 4}, DType::kFloat32));
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor right, x.Slice(/*axis=*/1, 2, 2));   // [8, 2], strided
///   Tensor mine = Tensor::View(pointer, {8, 4}, DType::kFloat32);   // the host's own memory
///
/// A handle is used by one thread at a time; its copies may be used by others, and the last one may
/// be destroyed on any thread. Nothing orders accesses to the elements: ranks may share memory that
/// all of them only read, such as a view of one array of the host's. A rank that writes must be the
/// only one to use that memory until a Run or a collective comes between.
class Tensor {
 public:
  /// No elements: shape [0], float32, on the CPU.
  Tensor() : shape_({0}), strides_({1}) {}

  /// Names memory that someone else owns and keeps alive, at least until the work queued with it is
  /// done. `data` may be null if there are no elements. Nothing is checked here: a null pointer
  /// with elements, or an impossible shape or type, is refused by the calls that would touch the
  /// elements.
  static Tensor View(void* data, Shape shape, DType dtype, Device device = Device::Cpu());
  /// The same, but keeps `memory` alive.
  static Tensor Own(std::shared_ptr<void> memory, Shape shape, DType dtype, Device device);

  const Shape& shape() const { return shape_; }
  /// Distance in elements between neighbours along each axis.
  const Shape& strides() const { return strides_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  int num_axes() const { return static_cast<int>(shape_.size()); }
  /// The extent along `axis` (-1: the last); -1, which is no extent, if there is no such axis.
  std::int64_t extent(int axis) const;
  /// Number of elements.
  std::int64_t size() const { return size_; }
  std::int64_t size_bytes() const { return size_ * static_cast<std::int64_t>(SizeOf(dtype_)); }
  /// Whether the elements stand in memory without gaps, in row-major order.
  bool is_contiguous() const;

  void* raw_data() const { return data_; }
  /// The first element; null if T is not the tensor's element type.
  template <typename T>
  T* data() const {
    return DTypeOf<T>() == dtype_ ? static_cast<T*>(data_) : nullptr;
  }

  /// The part [begin, begin + length) along `axis` (-1: the last), sharing memory.
  /// kInvalidArgument: no such axis, a range that leaves it, or an impossible shape.
  absl::StatusOr<Tensor> Slice(int axis, std::int64_t begin, std::int64_t length) const;
  /// The same elements with the two axes exchanged, sharing memory: element [i, j] of this one is
  /// [j, i] of the result. kInvalidArgument: not two axes.
  absl::StatusOr<Tensor> Transpose() const;
  /// The same elements in another shape, sharing memory. kInvalidArgument: another number of
  /// elements, or not contiguous.
  absl::StatusOr<Tensor> Reshape(Shape shape) const;

  /// "float32 [2, 3] on cpu".
  std::string ToString() const;

 private:
  Tensor(std::shared_ptr<void> memory, void* data, Shape shape, DType dtype, Device device);

  std::shared_ptr<void> memory_;
  void* data_ = nullptr;
  Shape shape_;
  Shape strides_;
  std::int64_t size_ = 0;
  DType dtype_ = DType::kFloat32;
  Device device_ = Device::Cpu();
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_TENSOR_H_
