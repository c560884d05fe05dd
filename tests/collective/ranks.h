// A group of ranks for the tests of collectives, and memory whose edges are watched.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_
#define LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/tests/catch.h"

namespace lockstep::testing {

/// Where the conformance suite runs. A new transport joins by one line.
struct TransportCase {
  const char* name;
  std::vector<Device> devices;
};
inline const TransportCase kTransports[] = {
    {"cpu", {Device::Cpu()}},
};

class Ranks {
 public:
  using Body = std::function<absl::Status(Worker&, Communicator&)>;

  static absl::StatusOr<Ranks> Create(int world_size, CollectiveBarrier::Options options = {},
                                      std::vector<Device> devices = {Device::Cpu()}) {
    Ranks ranks;
    LOCKSTEP_ASSIGN_OR_RETURN(ranks.executor, Executor::Create({.devices = std::move(devices),
                                                                .world_size = world_size}));
    LOCKSTEP_ASSIGN_OR_RETURN(ranks.barrier, CollectiveBarrier::Create(*ranks.executor, options));
    return ranks;
  }

  /// The executor's own verdict.
  absl::Status Run(const Body& body) {
    return executor->Run(
        [&](Worker& worker) { return body(worker, barrier->communicator(worker.rank())); });
  }

  /// What each rank's body returned, without the executor hearing of failures.
  std::vector<absl::Status> RunEach(const Body& body) {
    std::vector<absl::Status> statuses(static_cast<std::size_t>(executor->world_size()));
    const absl::Status run = Run([&](Worker& worker, Communicator& comm) {
      statuses[static_cast<std::size_t>(worker.rank())] = body(worker, comm);
      return absl::OkStatus();
    });
    for (absl::Status& status : statuses) status.Update(run);
    return statuses;
  }

  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
};

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

/// `count` elements that begin `skew` elements past a 64-byte boundary, with a watched margin on
/// both sides.
class Guarded {
 public:
  Guarded(DType dtype, std::int64_t count, int skew = 0)
      : dtype_(dtype), count_(count), bytes_(static_cast<std::size_t>(count) * SizeOf(dtype)) {
    storage_.assign(bytes_ + 3 * kMargin + 64, kFill);
    const auto base = reinterpret_cast<std::uintptr_t>(storage_.data()) + kMargin;
    begin_ = (64 - base % 64) % 64 + kMargin + static_cast<std::size_t>(skew) * SizeOf(dtype);
  }

  void* data() { return storage_.data() + begin_; }
  Tensor tensor() { return Tensor::View(data(), {count_}, dtype_); }
  void Set(std::int64_t index, double value) { SetElement(dtype_, data(), index, value); }
  double Get(std::int64_t index) { return GetElement(dtype_, data(), index); }
  /// Every byte 0xFF: a NaN in every floating type.
  void Spoil() { std::memset(data(), 0xFF, bytes_); }

  /// Nothing was written outside.
  bool MarginsIntact() const {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      if ((i < begin_ || i >= begin_ + bytes_) && storage_[i] != kFill) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kMargin = 128;
  static constexpr unsigned char kFill = 0xA5;

  DType dtype_;
  std::int64_t count_;
  std::size_t bytes_;
  std::size_t begin_;
  std::vector<unsigned char> storage_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_
