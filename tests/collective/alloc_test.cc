// Steady state allocates nothing, and wherever an allocation fails, every rank is told, nothing
// leaks, and the group can be healed.
#include <pthread.h>

#include <atomic>
#include <limits>
#include <new>
#include <thread>

#include "lockstep/tests/collective/allocations.h"
#include "lockstep/tests/collective/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

// Calls `attempt(arm)` once for each allocation that it makes after it calls `arm()`: that one
// fails, alone or with all after it. Ends when an attempt returns that none has failed.
template <typename Attempt>
absl::Status ForEachAllocation(Attempt attempt) {
  for (const bool alone : {true, false}) {
    bool failed = true;
    for (int k = 1; failed; ++k) {
      LOCKSTEP_RETURN_IF_ERROR(Expect(k < kMostAllocations, "there is no end of allocations"));
      const auto arm = [k, alone] { Arm(k, alone ? k : kMostAllocations); };
      LOCKSTEP_ASSIGN_OR_RETURN(failed, attempt(arm));
    }
  }
  return absl::OkStatus();
}

// What an attempt without a rank gave: an error when an allocation failed, and only then.
absl::StatusOr<bool> FailsIf(bool failed, const absl::Status& status) {
  LOCKSTEP_RETURN_IF_ERROR(failed ? ExpectStatus(status, Code::kResourceExhausted, "") : status);
  return failed;
}

TEST_CASE("F24: an executor and a group are made, or memory runs out and nothing is left behind") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      const std::vector<Device> devices = {Device::Cpu()};
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](auto arm) -> absl::StatusOr<bool> {
        Executor::Options options{.devices = devices, .world_size = n};
        arm();
        auto executor = Executor::Create(std::move(options));
        return FailsIf(Disarm(), executor.status());
      }));
      LOCKSTEP_ASSIGN_OR_RETURN(auto executor,
                                Executor::Create({.devices = devices, .world_size = n}));
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](auto arm) -> absl::StatusOr<bool> {
        arm();
        auto barrier = CollectiveBarrier::Create(*executor);
        return FailsIf(Disarm(), barrier.status());
      }));
      const std::vector<Stream> streams(static_cast<std::size_t>(n));
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](auto arm) -> absl::StatusOr<bool> {
        arm();
        auto barrier = CollectiveBarrier::Create(streams);
        return FailsIf(Disarm(), barrier.status());
      }));
    }
    return absl::OkStatus();
  });
}

// Heals the group, and finds it working.
absl::Status GoesOn(Ranks& ranks) {
  LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
  return ranks.Run([](Worker&, Communicator& comm) { return AllReduceOne(comm); });
}

// Carries out `calls` on every rank for each allocation. When one failed, every rank gets
// kResourceExhausted, kAborted or `expected`; otherwise all get `expected`. A text that was made
// in vain, because another rank was faster, may fail without effect.
absl::Status EveryRankIsTold(int world_size, Code expected, const Ranks::Body& calls,
                             absl::Duration timeout = absl::Seconds(60)) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks,
                            Ranks::Create(world_size, {.timeout = timeout, .check_nan = true}));
  std::vector<absl::Status> told(static_cast<std::size_t>(world_size));
  bool exhausted = false;
  LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](auto arm) -> absl::StatusOr<bool> {
    const auto body = [&](Worker& worker, Communicator& comm) {
      told[static_cast<std::size_t>(worker.rank())] = calls(worker, comm);
      return absl::OkStatus();
    };
    arm();
    const absl::Status run = ranks.Run(body);
    const bool failed = Disarm();
    LOCKSTEP_RETURN_IF_ERROR(run);
    int num_ok = 0;
    for (const absl::Status& status : told) {
      const bool memory = absl::IsResourceExhausted(status);
      exhausted = exhausted || memory;
      num_ok += status.ok() ? 1 : 0;
      LOCKSTEP_RETURN_IF_ERROR(
          Expect(status.code() == expected || (failed && (memory || absl::IsAborted(status))),
                 status.ToString()));
    }
    LOCKSTEP_RETURN_IF_ERROR(Expect(num_ok == 0 || num_ok == world_size, "some ranks came out OK"));
    LOCKSTEP_RETURN_IF_ERROR(GoesOn(ranks));
    return failed;
  }));
  LOCKSTEP_RETURN_IF_ERROR(Expect(exhausted, "nobody was ever told"));
  return WorksWell(ranks);
}

// Adds up `count` elements, two at most.
absl::Status AllReduceCount(Communicator& comm, std::int64_t count) {
  std::int64_t values[2] = {1, 1};
  const Tensor tensor = Tensor::View(values, {count}, DType::kInt64);
  return comm.AllReduce(tensor, tensor);
}

TEST_CASE("F24: memory runs out in a call that the ranks do not agree on") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(
          EveryRankIsTold(n, Code::kFailedPrecondition, [](Worker& worker, Communicator& comm) {
            return AllReduceCount(comm, worker.rank() == 0 ? 2 : 1);
          }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a rank refuses its call") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(
          EveryRankIsTold(n, Code::kAborted, [](Worker& worker, Communicator& comm) {
            std::int64_t value = 1;
            const Tensor tensor = Tensor::View(&value, {1}, DType::kInt64);
            if (worker.rank() > 0) return comm.AllReduce(tensor, tensor);
            const absl::Status refused = comm.Broadcast(tensor, tensor, /*root=*/-1);
            // As the others are told of it.
            return absl::IsInvalidArgument(refused) ? absl::AbortedError("") : refused;
          }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a time-out is explained") {
  SURVIVES([]() -> absl::Status {
    for (const int n : {2, 3}) {
      std::atomic<int> returned{0};
      LOCKSTEP_RETURN_IF_ERROR(EveryRankIsTold(
          n, Code::kDeadlineExceeded,
          [&](Worker& worker, Communicator& comm) -> absl::Status {
            if (worker.rank() > 0) {
              absl::Status status = comm.Barrier();
              ++returned;
              return status;
            }
            while (returned < n - 1) std::this_thread::yield();
            returned = 0;
            const absl::Status late = comm.Barrier();
            return absl::IsAborted(late) ? absl::DeadlineExceededError("") : late;
          },
          absl::Milliseconds(50)));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a NaN is reported") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(
          EveryRankIsTold(n, Code::kInvalidArgument, [](Worker& worker, Communicator& comm) {
            float value = worker.rank() == 0 ? std::numeric_limits<float>::quiet_NaN() : 1;
            const Tensor tensor = Tensor::View(&value, {1}, DType::kFloat32);
            return comm.AllReduce(tensor, tensor);
          }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a group is split") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(
          EveryRankIsTold(n, Code::kOk, [](Worker& worker, Communicator& comm) {
            return comm.Split(worker.rank() % 2, -worker.rank()).status();
          }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a rank fails, and when its thread is replaced") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n));
      const auto run = [&](const auto& arm, auto fail) -> absl::StatusOr<bool> {
        const auto body = [&](Worker& worker, Communicator& comm) -> absl::Status {
          return worker.rank() == 0 ? fail() : comm.Barrier();
        };
        arm();
        const absl::Status status = ranks.Run(body);
        const bool failed = Disarm();
        LOCKSTEP_RETURN_IF_ERROR(Expect(!status.ok(), "the Run came out OK"));
        LOCKSTEP_RETURN_IF_ERROR(GoesOn(ranks));
        return failed;
      };
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](const auto& arm) {
        return run(arm, []() -> absl::Status { throw std::bad_alloc(); });
      }));
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](const auto& arm) {
        return run(arm, []() -> absl::Status { pthread_exit(nullptr); });
      }));
      LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](const auto& arm) -> absl::StatusOr<bool> {
        (void)ranks.Run([](Worker&, Communicator&) -> absl::Status { pthread_exit(nullptr); });
        LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
        const auto barrier = [](Worker&, Communicator& comm) { return comm.Barrier(); };
        arm();
        const absl::Status status = ranks.Run(barrier);
        const bool failed = Disarm();
        LOCKSTEP_RETURN_IF_ERROR(FailsIf(failed, status).status());
        LOCKSTEP_RETURN_IF_ERROR(GoesOn(ranks));
        return failed;
      }));
    }
    return absl::OkStatus();
  });
}

// One of every kind, with values that this rank has room for.
absl::Status OneOfEach(Communicator& comm, std::vector<std::vector<std::int64_t>>& memory) {
  const std::int64_t n = comm.world_size();
  const auto part = [&](std::size_t which, std::int64_t count) {
    return Tensor::View(memory[which].data(), {count}, DType::kInt64);
  };
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(part(0, n), part(1, n)));
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(part(0, n), part(1, 1)));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part(0, 1), part(1, n)));
  LOCKSTEP_RETURN_IF_ERROR(comm.Broadcast(part(0, n), part(1, n), 0));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(part(0, n), part(1, n)));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(part(0, n), part(0, n)));
  LOCKSTEP_ASSIGN_OR_RETURN(auto pending, comm.AllReduceAsync(part(0, n), part(1, n)));
  LOCKSTEP_RETURN_IF_ERROR(pending.Wait());
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  return comm.Barrier();
}

TEST_CASE("F24: steady state allocates nothing") {
  for (const int n : kWorldSizes) {
    SURVIVES([n]() -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n, {.check_nan = true}));
      const auto size = static_cast<std::size_t>(n);
      std::vector memory(size, std::vector(2, std::vector<std::int64_t>(size)));
      const Ranks::Body body = [&](Worker& worker, Communicator& comm) {
        return OneOfEach(comm, memory[static_cast<std::size_t>(worker.rank())]);
      };
      LOCKSTEP_RETURN_IF_ERROR(ranks.Run(body));
      const Ranks::Body thousand = [&](Worker& worker, Communicator& comm) -> absl::Status {
        for (int i = 0; i < 1000; ++i) LOCKSTEP_RETURN_IF_ERROR(body(worker, comm));
        return absl::OkStatus();
      };
      Arm(kMostAllocations, kMostAllocations);
      absl::Status status = ranks.Run(thousand);
      for (int i = 0; i < 100; ++i) status.Update(ranks.Run(body));
      Disarm();
      LOCKSTEP_RETURN_IF_ERROR(status);
      return Expect(NumAllocations() == 0, absl::StrCat(NumAllocations(), " allocations"));
    });
  }
}

}  // namespace
}  // namespace lockstep
