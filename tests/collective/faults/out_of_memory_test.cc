// Steady state allocates nothing, and wherever an allocation fails, every rank is told, nothing
// leaks, and the group can be healed.
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <limits>
#include <new>
#include <thread>

#include "absl/strings/match.h"
#include "lockstep/collective/cuda/residency.h"
#include "lockstep/tests/collective/faults/allocations.h"
#include "lockstep/tests/collective/faults/faults.h"

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
      LOCKSTEP_RETURN_IF_ERROR(Expect(k < kMaxAllocations, "there is no end of allocations"));
      const auto arm = [k, alone] { Arm(k, alone ? k : kMaxAllocations); };
      LOCKSTEP_ASSIGN_OR_RETURN(failed, attempt(arm));
    }
  }
  return absl::OkStatus();
}

// For attempts without ranks: an error if an allocation failed, and only then.
absl::StatusOr<bool> FailsIf(bool failed, const absl::Status& status) {
  LOCKSTEP_RETURN_IF_ERROR(failed ? ExpectStatus(status, Code::kResourceExhausted, "") : status);
  return failed;
}

// A group's lanes on a GPU that only the ledger knows, and its sides.
absl::StatusOr<bool> TakesLanes(absl::FunctionRef<void()> arm) {
  using internal::cuda::Residency;
  constexpr int kGpu = 1000;
  const auto lane = [](std::uintptr_t stream) {
    return internal::cuda::Lane{kGpu, 132, reinterpret_cast<const void*>(stream)};
  };
  const std::vector<internal::cuda::Lane> lanes = {lane(1), lane(2)};
  const std::vector<internal::cuda::Lane> sides = {lane(3), lane(4)};
  absl::Status status;
  bool failed = false;
  {
    arm();
    absl::StatusOr<std::unique_ptr<Residency>> group = absl::UnknownError("");
    try {
      group = Residency::Take(lanes, 4);
      status = group.status();
      if (group.ok()) status = (*group)->TakeSides(sides);
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError("");
    }
    failed = Disarm();
  }
  LOCKSTEP_RETURN_IF_ERROR(
      Expect(Residency::NumLanes(kGpu) == 0, "lanes are taken for ever that nobody has"));
  return FailsIf(failed, status);
}

TEST_CASE("F24: a group's lanes on a GPU are taken, or memory runs out and none is lost",
          "[fault]") {
  SURVIVES([] { return ForEachAllocation([](auto arm) { return TakesLanes(arm); }); });
}

TEST_CASE("F24: an executor and a group are made, or memory runs out and nothing is left behind",
          "[fault]") {
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
// kResourceExhausted, kAborted or `expected`; otherwise all get `expected`. A text that is not
// needed, because another rank was faster, may fail without effect.
absl::Status EveryRankIsTold(int world_size, Code expected, const Ranks::Body& calls) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(world_size, {.check_nan = true}));
  std::vector<absl::Status> told(static_cast<std::size_t>(world_size));
  bool exhausted = false;
  LOCKSTEP_RETURN_IF_ERROR(ForEachAllocation([&](auto arm) -> absl::StatusOr<bool> {
    const auto body = [&](Worker& worker, Communicator& comm) {
      told[worker.rank()] = calls(worker, comm);
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

// Sums `count` elements, at most two.
absl::Status AllReduceCount(Communicator& comm, std::int64_t count) {
  std::int64_t values[2] = {1, 1};
  const Tensor tensor = Tensor::View(values, {count}, DType::kInt64);
  return comm.AllReduce(tensor, tensor);
}

TEST_CASE("F24: memory runs out in a call that the ranks do not agree on", "[fault]") {
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

TEST_CASE("F24: memory runs out while a rank refuses its call", "[fault]") {
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

// How many seconds the monotonic clock is ahead.
std::atomic<std::int64_t> ahead{0};

// Lets the waits of `threads` time out; sleeping threads look at the clock when they are woken.
void EndTheirTime(absl::Span<const std::atomic<pthread_t>> threads) {
  ahead += 61;
  for (const auto& thread : threads) {
    if (const pthread_t waiting = thread; waiting != pthread_t{}) pthread_kill(waiting, SIGUSR1);
  }
  std::this_thread::sleep_for(std::chrono::microseconds(50));
}

// A rank outside the round that timed out is told of it like of any failure.
absl::Status AsTimeOut(const absl::Status& status) {
  const bool later = absl::StrContains(status.message(), "first cause: DEADLINE_EXCEEDED");
  return absl::IsAborted(status) && later ? absl::DeadlineExceededError("") : status;
}

TEST_CASE("F24: memory runs out while a time-out is explained", "[fault]") {
  SURVIVES([]() -> absl::Status {
    struct sigaction wake {};
    wake.sa_handler = [](int) {};
    sigaction(SIGUSR1, &wake, nullptr);
    for (const int n : {2, 3}) {
      std::atomic<int> returned{0};
      std::atomic<pthread_t> waiting[3] = {};
      LOCKSTEP_RETURN_IF_ERROR(EveryRankIsTold(
          n, Code::kDeadlineExceeded, [&](Worker& worker, Communicator& comm) -> absl::Status {
            if (worker.rank() > 0) {
              waiting[worker.rank()] = pthread_self();
              const absl::Status status = comm.Barrier();
              ++returned;
              return AsTimeOut(status);
            }
            while (returned < n - 1) EndTheirTime(waiting);
            returned = 0;
            return AsTimeOut(comm.Barrier());
          }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F24: memory runs out while a NaN is reported", "[fault]") {
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

TEST_CASE("F24: memory runs out while a group is split", "[fault]") {
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

TEST_CASE("F24: memory runs out while a rank fails, and when its thread is replaced", "[fault]") {
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

// What one rank needs for one call of every kind, made before allocations are counted.
struct RankMemory {
  explicit RankMemory(int world_size)
      : in(static_cast<std::size_t>(world_size)),
        out(in.size()),
        counts(in.size(), 1),
        deep_in(Tensor::View(in.data(), {1, 1, 1, 1, 1, world_size}, DType::kInt64)),
        deep_out(Tensor::View(out.data(), {1, 1, 1, 1, 1, world_size}, DType::kInt64)) {}

  std::vector<std::int64_t> in;
  std::vector<std::int64_t> out;
  std::vector<std::int64_t> counts;
  // More axes than a shape holds without the heap.
  Tensor deep_in;
  Tensor deep_out;
};

absl::Status OneOfEach(Communicator& comm, RankMemory& memory) {
  const std::int64_t n = comm.world_size();
  const auto in = [&](Shape shape) {
    return Tensor::View(memory.in.data(), std::move(shape), DType::kInt64);
  };
  const auto out = [&](Shape shape) {
    return Tensor::View(memory.out.data(), std::move(shape), DType::kInt64);
  };
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(in({n}), out({n})));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(in({1, n}), out({1, n})));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(memory.deep_in, memory.deep_out));
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(in({n}), out({1})));
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(in({1, n}), out({1, 1}), ReduceOp::kSum, -1));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(in({1}), out({n})));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(in({1, 1}), out({1, n}), 1));
  LOCKSTEP_RETURN_IF_ERROR(comm.Broadcast(in({n}), out({n}), 0));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(in({n}), out({n})));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(in({n}), out({n}), memory.counts, memory.counts));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(in({n}), in({n})));
  LOCKSTEP_ASSIGN_OR_RETURN(auto pending, comm.AllReduceAsync(in({n}), out({n})));
  LOCKSTEP_RETURN_IF_ERROR(pending.Wait());
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  return comm.Barrier();
}

TEST_CASE("F24: steady state allocates nothing", "[fault]") {
  for (const int n : kWorldSizes) {
    SURVIVES([n]() -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n, {.check_nan = true}));
      std::vector<RankMemory> memory;
      for (int rank = 0; rank < n; ++rank) memory.emplace_back(n);
      const Ranks::Body body = [&](Worker& worker, Communicator& comm) {
        return OneOfEach(comm, memory[worker.rank()]);
      };
      // Twice, in even rounds and in odd ones.
      LOCKSTEP_RETURN_IF_ERROR(ranks.Run(body));
      LOCKSTEP_RETURN_IF_ERROR(ranks.Run(body));
      const Ranks::Body hundreds = [&](Worker& worker, Communicator& comm) -> absl::Status {
        for (int i = 0; i < 300; ++i) LOCKSTEP_RETURN_IF_ERROR(body(worker, comm));
        return absl::OkStatus();
      };
      Arm(kMaxAllocations, kMaxAllocations);
      absl::Status status = ranks.Run(hundreds);
      for (int i = 0; i < 100; ++i) status.Update(ranks.Run(body));
      Disarm();
      LOCKSTEP_RETURN_IF_ERROR(status);
      return Expect(NumAllocations() == 0, absl::StrCat(NumAllocations(), " allocations"));
    });
  }
}

}  // namespace
}  // namespace lockstep

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && clock == CLOCK_MONOTONIC) time->tv_sec += lockstep::ahead;
  return static_cast<int>(result);
}
