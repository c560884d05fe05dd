// A stand-in for a group, for tests of what stands in front of one.
#ifndef LOCKSTEP_TESTS_RECORDER_H_
#define LOCKSTEP_TESTS_RECORDER_H_

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "lockstep/collective/communicator.h"

namespace lockstep::testing {

// Takes the place of a group, and keeps what reaches it.
class Recorder final : public Communicator {
 public:
  Recorder(int rank, int world_size) : Communicator(rank, world_size, Device::Cpu()) {}

  CommunicatorStats stats() const override {
    CommunicatorStats stats;
    stats.num_collectives = calls.size();
    return stats;
  }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override {
    on_call();
    ++num_splits;
    if (color < 0) return nullptr;
    return std::make_unique<Recorder>(key, 2);
  }
  absl::Status Synchronize() override { return absl::UnknownError("synchronized"); }
  absl::Status Fail(absl::Status status) override { return status; }

  std::vector<CollectiveCall> calls;
  std::vector<std::vector<std::int64_t>> counts;
  int num_splits = 0;
  int num_refused = 0;
  std::function<void()> on_call = [] {};

 protected:
  absl::Status Execute(const CollectiveCall& call) override {
    on_call();
    calls.push_back(call);
    calls.back().details = nullptr;  // which ends with the call
    for (const std::int64_t* of_call : {call.send_counts(), call.receive_counts()}) {
      if (of_call != nullptr) counts.emplace_back(of_call, of_call + world_size());
    }
    return absl::OkStatus();
  }
  absl::Status Refuse(const CollectiveCall&, absl::Status error) override {
    ++num_refused;
    return error;
  }
};

inline float memory[2][64];
inline Tensor In(Shape shape, DType dtype = DType::kFloat32) {
  return Tensor::View(memory[0], std::move(shape), dtype);
}
inline Tensor Out(Shape shape, DType dtype = DType::kFloat32) {
  return Tensor::View(memory[1], std::move(shape), dtype);
}
inline absl::Status Sum(Communicator& comm, DType dtype = DType::kFloat32) {
  return comm.AllReduce(In({8}, dtype), Out({8}, dtype));
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_RECORDER_H_
