// What a group survives. Each case in a child process: a hang is a failure with the stacks of all
// threads.
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>

#include "lockstep/tests/collective/ranks.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::Expect;
using testing::ExpectStatus;
using testing::Ranks;
using testing::RunInChild;

using Code = absl::StatusCode;
using Clock = std::chrono::steady_clock;

constexpr auto kLimit = absl::Seconds(60);
constexpr auto kTimeout = absl::Milliseconds(200);
// Far above the abort bound, so that a slow machine does not fail a test, and far below any
// time-out in use.
constexpr auto kSoon = std::chrono::seconds(10);

const int kWorldSizes[] = {2, 3, 4, 8};

#define SURVIVES(...) REQUIRE_OK(RunInChild(kLimit, __VA_ARGS__))

absl::Status AllReduceOne(Communicator& comm) {
  std::int64_t one = 1;
  const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
  return Expect(one == comm.world_size(), absl::StrCat("the sum of ones is ", one));
}

// A hundred exact rounds.
absl::Status WorksWell(Ranks& ranks) {
  return ranks.Run([](Worker&, Communicator& comm) -> absl::Status {
    for (int round = 0; round < 100; ++round) LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    return absl::OkStatus();
  });
}

// Heals the group and finds it as good as new.
absl::Status Heals(Ranks& ranks) {
  LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
  return WorksWell(ranks);
}

// Rank `culprit` does `fault` instead of its second collective; every other rank's second must fail
// with kAborted and `part`, soon.
absl::Status OthersAreFreed(int world_size, const std::function<absl::Status()>& fault,
                            const std::string& part) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(world_size));
  const int culprit = world_size - 1;
  std::vector<absl::Status> others(static_cast<std::size_t>(world_size), absl::AbortedError(part));
  const auto start = Clock::now();
  const absl::Status verdict = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    if (worker.rank() == culprit) return fault();
    return others[static_cast<std::size_t>(worker.rank())] = AllReduceOne(comm);
  });
  LOCKSTEP_RETURN_IF_ERROR(Expect(Clock::now() - start < kSoon, "the others waited too long"));
  for (const absl::Status& other : others)
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(other, Code::kAborted, part));
  LOCKSTEP_RETURN_IF_ERROR(Expect(!verdict.ok(), "the Run came out OK"));
  LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(ranks.barrier->status(), Code::kAborted, part));
  return Heals(ranks);
}

TEST_CASE("F1: a rank that throws frees the others, who are told what it threw") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(
          n, []() -> absl::Status { throw std::runtime_error("boom"); },
          absl::StrCat("rank ", n - 1, " failed: INTERNAL: rank ", n - 1,
                       " threw std::runtime_error: boom")));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F2: a rank that returns an error frees the others, who are told its status") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(
          n, [] { return absl::DataLossError("bad shard"); },
          absl::StrCat("rank ", n - 1, " failed: DATA_LOSS: bad shard")));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F33: a rank whose task ends early, or whose thread exits, frees the others at once") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(
          n, [] { return absl::OkStatus(); },
          absl::StrCat("rank ", n - 1, " ended the task and will not arrive (last call: #1)")));
      LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(
          n, []() -> absl::Status { pthread_exit(nullptr); },
          absl::StrCat("rank ", n - 1, "'s thread ended inside its task")));
    }
    return absl::OkStatus();
  });
}

// Rank `late` stays away from the second round until all others have returned from it.
absl::StatusOr<std::vector<absl::Status>> StaysAway(Ranks& ranks, int late) {
  std::atomic<int> returned{0};
  const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    if (worker.rank() != late) {
      absl::Status status = AllReduceOne(comm);
      ++returned;
      return status;
    }
    while (returned < worker.world_size() - 1) std::this_thread::yield();
    return AllReduceOne(comm);
  });
  return statuses;
}

TEST_CASE(
    "F3, F5: when a rank does not arrive all get one time-out that names it, and late it is told "
    "the same") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n, {.timeout = kTimeout}));
      const int late = n / 2;
      const auto start = Clock::now();
      LOCKSTEP_ASSIGN_OR_RETURN(const auto statuses, StaysAway(ranks, late));
      const auto took = Clock::now() - start;
      LOCKSTEP_RETURN_IF_ERROR(Expect(took >= std::chrono::milliseconds(200) && took < kSoon,
                                      "not within the time-out"));
      const std::string text = absl::StrCat("all_reduce #2 (int64 x 1, sum): rank ", late,
                                            " did not arrive within 0.2 s (last call: #1); rank");
      for (int rank = 0; rank < n; ++rank) {
        const absl::Status& status = statuses[static_cast<std::size_t>(rank)];
        LOCKSTEP_RETURN_IF_ERROR(
            ExpectStatus(status, rank == late ? Code::kAborted : Code::kDeadlineExceeded, text));
        const auto& reference = statuses[late == 0 ? 1 : 0];
        if (rank != late) LOCKSTEP_RETURN_IF_ERROR(Expect(status == reference, "the texts differ"));
      }
      LOCKSTEP_RETURN_IF_ERROR(Heals(ranks));
    }
    return absl::OkStatus();
  });
}

TEST_CASE(
    "F4: a rank that is late, but in time, costs nothing but the wait, which the stats show") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    return ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      const CommunicatorStats before = comm.stats();
      if (worker.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
      const CommunicatorStats after = comm.stats();
      const bool last = after.num_last_arrivals == before.num_last_arrivals + 1;
      LOCKSTEP_RETURN_IF_ERROR(Expect(last == (worker.rank() == 1), "somebody else was late"));
      if (worker.rank() == 1) return absl::OkStatus();
      return Expect(after.max_wait >= absl::Milliseconds(50), "the wait does not show");
    });
  });
}

TEST_CASE("F12: a rank that calls one round more waits in vain, and is told both sides' rounds") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3, {.timeout = kTimeout}));
    std::atomic<bool> told{false};
    const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
      for (int round = 0; round < 5; ++round) LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
      if (worker.rank() == 0) {
        absl::Status status = comm.Barrier();
        told = true;
        return status;
      }
      while (!told) std::this_thread::yield();
      return absl::OkStatus();
    });
    return ExpectStatus(
        statuses[0], Code::kDeadlineExceeded,
        "barrier #6: ranks 1, 2 did not arrive within 0.2 s (last call: #5, #5); rank 0 waited");
  });
}

TEST_CASE("F22, F23: many ranks on few cores finish all their rounds") {
  SURVIVES([]() -> absl::Status {
    for (const int n : {8, 64}) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n, {.timeout = absl::Seconds(20)}));
      LOCKSTEP_RETURN_IF_ERROR(WorksWell(ranks));
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(8, {.timeout = absl::Seconds(20)}));
    return WorksWell(ranks);
  });
}

TEST_CASE(
    "F35, F36: abort from any thread, any number of times: the first cause stays, and later calls "
    "fail at once") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    std::atomic<int> waiting{0};
    std::vector<std::thread> outsiders;
    const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
      if (worker.rank() == 2) {
        while (waiting < 2) std::this_thread::yield();
        for (int i = 0; i < 8; ++i) {
          outsiders.emplace_back([&ranks, i] {
            ranks.barrier->Abort(absl::UnknownError(absl::StrCat("operator ", i)));
          });
        }
        for (std::thread& outsider : outsiders) outsider.join();
      }
      ++waiting;
      return AllReduceOne(comm);
    });
    const absl::Status cause = ranks.barrier->status();
    for (const absl::Status& status : statuses) {
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kAborted, cause.message()));
    }
    const auto start = Clock::now();
    const auto later = ranks.RunEach([](Worker&, Communicator& comm) { return comm.Barrier(); });
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(Clock::now() - start < kSoon, "calls on a poisoned group waited"));
    for (const absl::Status& status : later) {
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(
          status, Code::kAborted, "poisoned until Reset(); first cause: ABORTED: operator"));
    }
    return Heals(ranks);
  });
}

TEST_CASE("F37: a group fails and heals a thousand times, and neither threads nor memory grow") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    for (int cycle = 0; cycle < 1000; ++cycle) {
      const absl::Status status =
          ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
            if (worker.rank() == cycle % 3) return absl::DataLossError("again");
            return AllReduceOne(comm);
          });
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kDataLoss, "again"));
      LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
      LOCKSTEP_RETURN_IF_ERROR(
          ranks.Run([](Worker&, Communicator& comm) { return AllReduceOne(comm); }));
    }
    return WorksWell(ranks);
  });
}

TEST_CASE(
    "F38: a rank that missed a failure and arrives after the reset is stale once, and disturbs "
    "nobody") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Device> devices(3, Device::Cpu());
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier,
                              CollectiveBarrier::Create(devices, {.timeout = kTimeout}));
    std::atomic<bool> reset{false};
    std::atomic<bool> stale{false};
    std::vector<absl::Status> results(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        Communicator& comm = barrier->communicator(rank);
        absl::Status& result = results[static_cast<std::size_t>(rank)];
        if (rank == 2) {
          while (!reset) std::this_thread::yield();
          result = ExpectStatus(AllReduceOne(comm), Code::kCancelled, "rank 2 missed a failure");
          stale = true;
        } else {
          result =
              ExpectStatus(AllReduceOne(comm), Code::kDeadlineExceeded, "rank 2 did not arrive");
          if (rank == 0) {
            result.Update(barrier->Reset());
            reset = true;
          }
          while (!stale) std::this_thread::yield();
        }
        for (int round = 0; round < 100; ++round) result.Update(AllReduceOne(comm));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& result : results) LOCKSTEP_RETURN_IF_ERROR(result);
    return absl::OkStatus();
  });
}

TEST_CASE("F39: a group destroyed while ranks wait frees them first") {
  SURVIVES([]() -> absl::Status {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const std::vector<Device> devices(3, Device::Cpu());
      LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(devices));
      std::atomic<int> inside{0};
      std::vector<absl::Status> results(2);
      std::vector<std::thread> threads;
      for (int rank = 0; rank < 2; ++rank) {
        threads.emplace_back([&, rank, comm = &barrier->communicator(rank)] {
          ++inside;
          results[static_cast<std::size_t>(rank)] = AllReduceOne(*comm);
        });
      }
      while (inside < 2) std::this_thread::yield();
      // A rank may enter only while the group is there.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      barrier.reset();
      for (std::thread& thread : threads) thread.join();
      for (const absl::Status& result : results) {
        LOCKSTEP_RETURN_IF_ERROR(
            ExpectStatus(result, Code::kAborted, "the group is being destroyed"));
      }
    }
    return absl::OkStatus();
  });
}

TEST_CASE(
    "F40: an executor destroyed from inside a task frees the ranks that wait, and nobody waits for "
    "itself") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    absl::Status waited;
    const absl::Status run = ranks.executor->Run([&](Worker& worker) -> absl::Status {
      if (worker.rank() == 0) return waited = ranks.barrier->communicator(0).Barrier();
      if (worker.rank() == 1) ranks.executor.reset();
      return absl::OkStatus();
    });
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(waited, Code::kAborted, "ended the task"));
    return ExpectStatus(run, Code::kFailedPrecondition,
                        "destroyed from inside the task of its own rank 1");
  });
}

TEST_CASE("F45, F44: the wall clock's jumps and a storm of signals do not end a wait") {
  SURVIVES([]() -> absl::Status {
    struct sigaction ignore {};
    ignore.sa_handler = [](int) {};
    sigaction(SIGALRM, &ignore, nullptr);
    const itimerval storm{.it_interval = {0, 500}, .it_value = {0, 500}};
    setitimer(ITIMER_REAL, &storm, nullptr);
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2, {.timeout = absl::Seconds(5)}));
    const absl::Status status = ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
      if (worker.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return AllReduceOne(comm);
    });
    const itimerval calm{};
    setitimer(ITIMER_REAL, &calm, nullptr);
    return status;
  });
}

TEST_CASE("F49: one rank on two threads at once is refused, naming the rank") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Device> devices(2, Device::Cpu());
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(devices));
    std::thread first([&] { (void)barrier->communicator(0).Barrier(); });
    absl::Status second;
    // The first is inside as soon as the second is refused.
    while (second.ok()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      second = barrier->communicator(0).Barrier();
    }
    barrier->Abort(absl::AbortedError("enough"));
    first.join();
    return ExpectStatus(second, Code::kInvalidArgument, "rank 0 is in another call already");
  });
}

TEST_CASE("a group split off inside a task is freed with its executor's other groups") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(4));
    std::vector<absl::Status> waited(4);
    const absl::Status run = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(auto half, comm.Split(worker.rank() / 2, worker.rank()));
      LOCKSTEP_RETURN_IF_ERROR(half->Barrier());
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      if (worker.rank() == 3) return absl::DataLossError("gone");
      // Ranks 0 and 1 wait for nobody that failed, but 0 waits for 1, who waits in the parent.
      return waited[static_cast<std::size_t>(worker.rank())] =
                 worker.rank() == 1 ? comm.Barrier() : half->Barrier();
    });
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(run, Code::kDataLoss, "gone"));
    for (int rank = 0; rank < 3; ++rank) {
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(waited[static_cast<std::size_t>(rank)], Code::kAborted,
                                            "rank 3 failed: DATA_LOSS: gone"));
    }
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lockstep
