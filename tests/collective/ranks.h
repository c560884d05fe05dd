// A group of ranks for the tests of collectives, and memory whose edges are watched.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_
#define LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/gpus.h"

namespace lockstep::testing {

/// Where the conformance suite runs. A new transport joins by one line.
struct TransportCase {
  const char* name;
  std::vector<Device> devices;
  CollectiveBarrier::Options options = {};
  int most_ranks = 9;

  int fewest_ranks() const { return static_cast<int>(devices.size()); }
};

/// Small buffers and few blocks, so that short messages take every way.
inline CollectiveBarrier::Options SharedPeer() {
  return {.transport = TransportKind::kPeer,
          .tuning = {.max_lines_bytes = 2048,
                     .lines_blocks = 4,
                     .push_blocks = 4,
                     .lines_threads = 64,
                     .push_tile_bytes = 4096}};
}

/// Those that this machine has. For cases tagged [gpu].
inline std::vector<TransportCase> Transports() {
  std::vector<TransportCase> cases = {{"cpu", {Device::Cpu()}}};
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() >= 1) {
    const Device one = gpus[0];
    cases.push_back({"ordered, one GPU", {one}, {.transport = TransportKind::kOrdered}});
    cases.push_back({"staged, one GPU", {one}, {.transport = TransportKind::kStaged}});
    cases.push_back({"peer, one GPU", {one}, SharedPeer(), 8});
  }
  if (gpus.size() >= 2) {
    const std::vector<Device> two = {gpus[0], gpus[1]};
    cases.push_back({"ordered, two GPUs", two, {.transport = TransportKind::kOrdered}});
    cases.push_back({"staged, two GPUs", two, {.transport = TransportKind::kStaged}});
    cases.push_back({"peer, two GPUs, dealt", two, SharedPeer(), 8});
    cases.push_back({"peer, two GPUs", two, {}, 2});
  }
  return cases;
}

class Ranks {
 public:
  using Body = std::function<absl::Status(Worker&, Communicator&)>;

  static absl::StatusOr<Ranks> Create(int world_size, const TransportCase& transport) {
    return Create(world_size, transport.options, transport.devices);
  }
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
/// both sides, in a rank's memory. Set() and Get() act on the host's copy, which on the CPU is the
/// memory itself; on a GPU Upload() and Download() move it.
class Guarded {
 public:
  Guarded(DType dtype, std::int64_t count, int skew = 0)
      : dtype_(dtype), count_(count), bytes_(static_cast<std::size_t>(count) * SizeOf(dtype)) {
    storage_.assign(bytes_ + 3 * kMargin + 128, kFill);
    const auto base = reinterpret_cast<std::uintptr_t>(storage_.data());
    begin_ = (64 - base % 64) % 64;
    data_at_ = kMargin + static_cast<std::size_t>(skew) * SizeOf(dtype);
  }
  Guarded(Worker& worker, DType dtype, std::int64_t count, int skew = 0)
      : Guarded(dtype, count, skew) {
    if (worker.device().is_cpu()) return;
    worker_ = &worker;
    device_ = *worker.Empty({static_cast<std::int64_t>(mirrored())}, DType::kFloat16);
    Upload().IgnoreError();  // the margins; whatever is wrong is so with the next copy too
  }

  void* data() {
    return worker_ == nullptr ? host() : static_cast<char*>(device_.raw_data()) + data_at_;
  }
  Tensor tensor() { return tensor({count_}); }
  Tensor tensor(Shape shape) {
    return Tensor::View(data(), std::move(shape), dtype_,
                        worker_ == nullptr ? Device::Cpu() : worker_->device());
  }
  void Set(std::int64_t index, double value) { SetElement(dtype_, host(), index, value); }
  double Get(std::int64_t index) { return GetElement(dtype_, host(), index); }
  /// The host's copy.
  void* host() { return storage_.data() + begin_ + data_at_; }
  std::size_t size_bytes() const { return bytes_; }

  absl::Status Upload() {
    return worker_ == nullptr ? absl::OkStatus() : Copy(*worker_, Mirror(), device_);
  }
  absl::Status Download() {
    return worker_ == nullptr ? absl::OkStatus() : Copy(*worker_, device_, Mirror());
  }

  /// NaN in every floating type: behind what the rank has queued, so that who
  /// reads the memory later than that takes it in.
  absl::Status Spoil() {
    if (worker_ != nullptr) {
      return Fill(*worker_, std::numeric_limits<double>::quiet_NaN(),
                  Tensor::View(data(), {static_cast<std::int64_t>(bytes_ / 2)}, DType::kFloat16,
                               worker_->device()));
    }
    std::memset(data(), 0xFF, bytes_);
    return absl::OkStatus();
  }

  /// Nothing was written outside.
  bool MarginsIntact() const {
    const std::size_t first = begin_ + data_at_;
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      if ((i < first || i >= first + bytes_) && storage_[i] != kFill) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kMargin = 128;
  static constexpr unsigned char kFill = 0xA5;

  // In elements of two bytes.
  std::size_t mirrored() const { return (bytes_ + 3 * kMargin) / 2; }
  Tensor Mirror() {
    return Tensor::View(storage_.data() + begin_, {static_cast<std::int64_t>(mirrored())},
                        DType::kFloat16);
  }

  DType dtype_;
  std::int64_t count_;
  std::size_t bytes_;
  std::vector<unsigned char> storage_;
  // Where the copy begins in the host's storage, and the elements in the copy.
  std::size_t begin_;
  std::size_t data_at_;
  Worker* worker_ = nullptr;
  Tensor device_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_RANKS_H_
