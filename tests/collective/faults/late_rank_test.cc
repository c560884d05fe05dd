// Ranks that are late, or never come: one verdict for all, in time; and only time ends a wait.
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Clock = std::chrono::steady_clock;

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
    "the same",
    "[fault]") {
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
        const absl::Status& status = statuses[rank];
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

TEST_CASE("F4: a rank that is late, but in time, costs nothing but the wait, which the stats show",
          "[fault]") {
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

TEST_CASE("F12: a rank that calls one round more waits in vain, and is told both sides' rounds",
          "[fault]") {
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

TEST_CASE("F22, F23: many ranks on few cores finish all their rounds", "[fault]") {
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
    "F38: a rank that missed a failure and arrives after the reset is stale once, and disturbs "
    "nobody",
    "[fault]") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Stream> streams(3);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier,
                              CollectiveBarrier::Create(streams, {.timeout = kTimeout}));
    std::atomic<bool> reset{false};
    std::atomic<bool> stale{false};
    std::vector<absl::Status> results(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        Communicator& comm = barrier->communicator(rank);
        absl::Status& result = results[rank];
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

TEST_CASE("F47: those who are left make a group of their own, and the one who was missing is stale",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    constexpr int kRanks = 4;
    for (int missing = 0; missing < kRanks; ++missing) {
      const std::vector<Stream> streams(kRanks);
      LOCKSTEP_ASSIGN_OR_RETURN(auto before,
                                CollectiveBarrier::Create(streams, {.timeout = kTimeout}));
      LOCKSTEP_ASSIGN_OR_RETURN(auto after,
                                CollectiveBarrier::Create(absl::MakeSpan(streams).subspan(1), {}));
      std::atomic<int> left{0};
      std::atomic<bool> reset{false};
      std::vector<absl::Status> results(kRanks);
      std::vector<std::thread> threads;
      for (int rank = 0; rank < kRanks; ++rank) {
        threads.emplace_back([&, rank] {
          absl::Status& result = results[rank];
          Communicator& old_end = before->communicator(rank);
          if (rank == missing) {
            while (!reset) std::this_thread::yield();
            result = ExpectStatus(AllReduceOne(old_end), Code::kCancelled, "missed a failure");
            return;
          }
          result = ExpectStatus(AllReduceOne(old_end), Code::kDeadlineExceeded, "did not arrive");
          if (++left == kRanks - 1) {
            result.Update(before->Reset());
            reset = true;
          }
          Communicator& end = after->communicator(rank < missing ? rank : rank - 1);
          for (int round = 0; round < 100; ++round) result.Update(AllReduceOne(end));
        });
      }
      for (std::thread& thread : threads) thread.join();
      for (const absl::Status& result : results) LOCKSTEP_RETURN_IF_ERROR(result);
    }
    return absl::OkStatus();
  });
}

// The wall clock jumps by an hour at every look while this is set. The executable's function
// replaces the C library's, for libraries too.
std::atomic<bool> clock_jumps{false};

TEST_CASE("F45: jumps of the wall clock do not end a wait, nor prolong it", "[fault]") {
  SURVIVES([]() -> absl::Status {
    clock_jumps = true;
    const auto first = std::chrono::system_clock::now();
    const auto second = std::chrono::system_clock::now();
    const auto jump = first > second ? first - second : second - first;
    LOCKSTEP_RETURN_IF_ERROR(Expect(jump > std::chrono::minutes(59), "the clock does not jump"));
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2, {.timeout = absl::Seconds(5)}));
    LOCKSTEP_RETURN_IF_ERROR(ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
      if (worker.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      return AllReduceOne(comm);
    }));
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks hasty, Ranks::Create(2, {.timeout = kTimeout}));
    const auto start = Clock::now();
    LOCKSTEP_ASSIGN_OR_RETURN(const auto statuses, StaysAway(hasty, 1));
    LOCKSTEP_RETURN_IF_ERROR(Expect(Clock::now() - start < kSoon, "the time-out came too late"));
    return ExpectStatus(statuses[0], Code::kDeadlineExceeded, "rank 1 did not arrive");
  });
}

TEST_CASE("F44: a storm of signals does not end a wait", "[fault]") {
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

}  // namespace
}  // namespace lockstep

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, time);
  static std::atomic<unsigned> looks{0};
  if (result == 0 && clock == CLOCK_REALTIME && lockstep::clock_jumps && looks++ % 2 == 0)
    time->tv_sec += 3600;
  return static_cast<int>(result);
}
