// A rank's memory with watched edges.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_GUARDED_H_
#define LOCKSTEP_TESTS_COLLECTIVE_GUARDED_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

/// Converts exactly where the type can hold the value.
inline void SetElement(DType dtype, void* data, std::int64_t index, double value) {
  VisitDType(dtype, [&]<typename T>() {
    T& element = static_cast<T*>(data)[index];
    if constexpr (std::is_arithmetic_v<T>) {
      element = static_cast<T>(value);
    } else {
      element = T::FromFloat(static_cast<float>(value));
    }
  });
}
inline double GetElement(DType dtype, const void* data, std::int64_t index) {
  return VisitDType(dtype, [&]<typename T>() -> double {
    const T& element = static_cast<const T*>(data)[index];
    if constexpr (std::is_arithmetic_v<T>) {
      return static_cast<double>(element);
    } else {
      return static_cast<double>(element.ToFloat());
    }
  });
}

/// Bytes of the host that begin `skew` bytes past a 64-byte boundary, between two margins.
class Framed {
 public:
  Framed(std::size_t size, std::size_t skew) : begin_(kMargin + skew), end_(begin_ + size) {
    lines_.resize((end_ + kMargin) / sizeof(Line) + 1);
    std::fill(frame(), frame() + frame_size(), kFill);
  }

  unsigned char* data() { return frame() + begin_; }
  /// Where the data begins in the whole.
  std::size_t offset() const { return begin_; }
  /// The whole frame, as elements of two bytes.
  Tensor Whole() {
    return Tensor::View(frame(), {static_cast<std::int64_t>(frame_size() / 2)}, DType::kFloat16);
  }
  /// Nothing was written outside.
  bool MarginsIntact() {
    const auto intact = [](unsigned char byte) { return byte == kFill; };
    return std::all_of(frame(), frame() + begin_, intact) &&
           std::all_of(frame() + end_, frame() + frame_size(), intact);
  }

 private:
  static constexpr std::size_t kMargin = 128;
  static constexpr unsigned char kFill = 0xA5;
  struct alignas(64) Line {
    unsigned char bytes[64];
  };

  unsigned char* frame() { return lines_.data()->bytes; }
  std::size_t frame_size() const { return lines_.size() * sizeof(Line); }

  std::size_t begin_;
  std::size_t end_;
  std::vector<Line> lines_;
};

/// `count` elements that begin `skew` elements past a 64-byte boundary in a rank's memory, in a
/// frame. Set() and Get() act on the host's copy, which on the CPU is the memory itself; on a GPU
/// Upload() and Download() move it, with its frame.
class Guarded {
 public:
  Guarded(DType dtype, std::int64_t count, int skew = 0)
      : dtype_(dtype),
        count_(count),
        host_(size_bytes(), static_cast<std::size_t>(skew) * SizeOf(dtype)) {}
  Guarded(Worker& worker, DType dtype, std::int64_t count, int skew = 0)
      : Guarded(dtype, count, skew) {
    if (worker.device().is_cpu()) return;
    worker_ = &worker;
    device_ = *worker.Empty(host_.Whole().shape(), DType::kFloat16);
    Upload().IgnoreError();  // the margins; an error would come back with the next copy
  }

  void* data() {
    return worker_ == nullptr ? host() : static_cast<char*>(device_.raw_data()) + host_.offset();
  }
  Tensor tensor() { return tensor({count_}); }
  Tensor tensor(Shape shape, DType dtype) {
    return Tensor::View(data(), std::move(shape), dtype,
                        worker_ == nullptr ? Device::Cpu() : worker_->device());
  }
  Tensor tensor(Shape shape) { return tensor(std::move(shape), dtype_); }
  void Set(std::int64_t index, double value) { SetElement(dtype_, host(), index, value); }
  double Get(std::int64_t index) { return GetElement(dtype_, host(), index); }
  /// The host's copy.
  void* host() { return host_.data(); }
  std::size_t size_bytes() const { return static_cast<std::size_t>(count_) * SizeOf(dtype_); }

  absl::Status Upload() {
    return worker_ == nullptr ? absl::OkStatus() : Copy(*worker_, host_.Whole(), device_);
  }
  absl::Status Download() {
    return worker_ == nullptr ? absl::OkStatus() : Copy(*worker_, device_, host_.Whole());
  }

  /// Fills it with NaN in every floating type, behind what the rank has queued: whoever reads it
  /// later than that gets NaN.
  absl::Status Spoil() {
    if (worker_ != nullptr) {
      return Fill(*worker_, std::numeric_limits<double>::quiet_NaN(),
                  tensor({static_cast<std::int64_t>(size_bytes() / 2)}, DType::kFloat16));
    }
    std::fill_n(host_.data(), size_bytes(), static_cast<unsigned char>(0xFF));
    return absl::OkStatus();
  }

  bool MarginsIntact() { return host_.MarginsIntact(); }

 private:
  DType dtype_;
  std::int64_t count_;
  Framed host_;
  Worker* worker_ = nullptr;  // null on the CPU
  Tensor device_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_GUARDED_H_
