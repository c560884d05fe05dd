// What the fault tests share: short time-outs, and what a group must do again after a failure.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_FAULTS_FAULTS_H_
#define LOCKSTEP_TESTS_COLLECTIVE_FAULTS_FAULTS_H_

#include <chrono>
#include <cstdint>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tests/ranks.h"

namespace lockstep::testing {

using Code = absl::StatusCode;

inline constexpr auto kLimit = absl::Seconds(60);
inline constexpr auto kTimeout = absl::Milliseconds(200);
// Far above the abort bound, so that a slow machine does not fail a test, and far below any
// time-out in use.
inline constexpr auto kSoon = std::chrono::seconds(10);

inline constexpr int kWorldSizes[] = {2, 3, 4, 8};

/// Runs a body in a child process: a hang is a failure with the stacks of all threads.
#define SURVIVES(...) \
  REQUIRE_OK(::lockstep::testing::RunInChild(::lockstep::testing::kLimit, __VA_ARGS__))

inline absl::Status AllReduceOne(Communicator& comm) {
  std::int64_t one = 1;
  const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
  return Expect(one == comm.world_size(), absl::StrCat("the sum of ones is ", one));
}

// A hundred exact rounds.
inline absl::Status WorksWell(Ranks& ranks) {
  return ranks.Run([](Worker&, Communicator& comm) -> absl::Status {
    for (int round = 0; round < 100; ++round) LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    return absl::OkStatus();
  });
}

// Heals the group and finds it as good as new.
inline absl::Status Heals(Ranks& ranks) {
  LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
  return WorksWell(ranks);
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_FAULTS_FAULTS_H_
