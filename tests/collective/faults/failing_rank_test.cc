// A rank that fails or dies, in any way and at any moment: the others are freed at once and told
// why, and the group can be healed.
#include <pthread.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <atomic>
#include <stdexcept>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Clock = std::chrono::steady_clock;

// When the fault happens, as the other ranks see it.
enum class Phase {
  kAfterRelease,   // while they may still be leaving the round before
  kBeforeArrival,  // before they enter the next round
  kWhileWaiting,   // while they wait in it
  kInTeardown,     // when they have no more rounds to do
};

constexpr Phase kPhases[] = {Phase::kAfterRelease, Phase::kBeforeArrival, Phase::kWhileWaiting};

void Nap() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

// The last rank does `fault` instead of its second collective; every other rank's second must fail
// with kAborted and `part`, soon.
absl::Status OthersAreFreed(int world_size, Phase phase, const std::function<absl::Status()>& fault,
                            const std::string& part) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(world_size));
  const int culprit = world_size - 1;
  std::vector<absl::Status> others(static_cast<std::size_t>(world_size), absl::AbortedError(part));
  std::atomic<int> arriving{0};
  std::atomic<bool> failing{false};
  const auto start = Clock::now();
  const absl::Status verdict = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    if (worker.rank() == culprit) {
      while (phase == Phase::kWhileWaiting && arriving < world_size - 1) std::this_thread::yield();
      if (phase != Phase::kAfterRelease) Nap();
      failing = true;
      return fault();
    }
    if (phase == Phase::kInTeardown) return absl::OkStatus();
    while (phase == Phase::kBeforeArrival && !failing) std::this_thread::yield();
    if (phase == Phase::kBeforeArrival) Nap();
    ++arriving;
    return others[worker.rank()] = AllReduceOne(comm);
  });
  LOCKSTEP_RETURN_IF_ERROR(Expect(Clock::now() - start < kSoon, "the others waited too long"));
  for (const absl::Status& other : others)
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(other, Code::kAborted, part));
  LOCKSTEP_RETURN_IF_ERROR(Expect(!verdict.ok(), "the Run came out OK"));
  LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(ranks.barrier->status(), Code::kAborted, part));
  return Heals(ranks);
}

// In every phase, for every number of ranks. `part` follows "rank <culprit>".
void OthersAreFreedAlways(const std::function<absl::Status()>& fault, const std::string& part) {
  SURVIVES([&]() -> absl::Status {
    for (const int n : kWorldSizes) {
      const std::string culprit = absl::StrCat("rank ", n - 1);
      for (const Phase phase : kPhases) {
        LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(n, phase, fault, culprit + part));
      }
      LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(n, Phase::kInTeardown, fault, culprit + part));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F1: a rank that throws frees the others, who are told what it threw", "[fault]") {
  OthersAreFreedAlways([]() -> absl::Status { throw std::runtime_error("boom"); },
                       " threw std::runtime_error: boom");
}

TEST_CASE("F2: a rank that returns an error frees the others, who are told its status", "[fault]") {
  OthersAreFreedAlways([] { return absl::DataLossError("bad shard"); },
                       " failed: DATA_LOSS: bad shard");
}

TEST_CASE("F33: a rank whose thread exits frees the others at once", "[fault]") {
  OthersAreFreedAlways([]() -> absl::Status { pthread_exit(nullptr); },
                       "'s thread ended inside its task");
}

TEST_CASE("F33: a rank whose task ends early frees the others at once", "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      for (const Phase phase : kPhases) {
        LOCKSTEP_RETURN_IF_ERROR(OthersAreFreed(
            n, phase, [] { return absl::OkStatus(); },
            absl::StrCat("rank ", n - 1, " ended the task and will not arrive (last call: #1)")));
      }
    }
    return absl::OkStatus();
  });
}

// AddressSanitizer knows of pthread_exit, but not that a cancellation point may not return, and
// would take what the unwinding leaves of the stack's shadow for errors.
void MayBeCancelledNow() {
#if defined(__SANITIZE_ADDRESS__)
  __asan_handle_no_return();
#endif
}

void SleepCancellably() {
#if defined(__SANITIZE_THREAD__)
  // It wraps calls that block, and misses what a thread does after it is unwound out of one.
  pthread_testcancel();
#else
  pause();
#endif
}

TEST_CASE("F34: a rank whose thread is cancelled in its own code frees the others at once",
          "[fault]") {
  OthersAreFreedAlways(
      []() -> absl::Status {
        pthread_cancel(pthread_self());
        MayBeCancelledNow();
        pthread_testcancel();
        return absl::OkStatus();
      },
      "'s thread ended inside its task");
}

TEST_CASE("F34: a rank cancelled by another thread, while it sleeps, frees the others at once",
          "[fault]") {
  OthersAreFreedAlways(
      []() -> absl::Status {
        std::thread([rank = pthread_self()] {
          Nap();
          pthread_cancel(rank);
        }).detach();
        MayBeCancelledNow();
        for (;;) SleepCancellably();
      },
      "'s thread ended inside its task");
}

// Rank 0 is cancelled while it waits in a round; then the others come, or do not.
absl::Status CancelledInside(int world_size, bool others_come) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      Ranks ranks, Ranks::Create(world_size, {.timeout = others_come ? absl::Seconds(60)
                                                                     : absl::Duration(kTimeout)}));
  std::atomic<bool> inside{false};
  std::atomic<bool> left{false};
  pthread_t waiting{};
  std::vector<absl::Status> first(static_cast<std::size_t>(world_size));
  std::vector<absl::Status> second(static_cast<std::size_t>(world_size));
  const absl::Status run = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    const auto rank = static_cast<std::size_t>(worker.rank());
    if (rank == 0) {
      waiting = pthread_self();
      inside = true;
      first[0] = AllReduceOne(comm);
      left = true;
      MayBeCancelledNow();
      for (;;) pthread_testcancel();
    }
    while (!inside) std::this_thread::yield();
    Nap();
    if (rank == 1) pthread_cancel(waiting);
    Nap();
    while (!others_come && !left) std::this_thread::yield();
    first[rank] = AllReduceOne(comm);
    return second[rank] = AllReduceOne(comm);
  });
  LOCKSTEP_RETURN_IF_ERROR(Expect(!run.ok(), "the Run came out OK"));
  for (std::size_t rank = 0; rank < first.size(); ++rank) {
    if (others_come) {
      LOCKSTEP_RETURN_IF_ERROR(first[rank]);
      if (rank == 0) continue;
      LOCKSTEP_RETURN_IF_ERROR(
          ExpectStatus(second[rank], Code::kAborted, "rank 0's thread ended inside its task"));
    } else {
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(first[rank],
                                            rank == 0 ? Code::kDeadlineExceeded : Code::kAborted,
                                            "did not arrive within 0.2 s"));
    }
  }
  return Heals(ranks);
}

TEST_CASE("F34: a rank cancelled inside a collective leaves it with the round's verdict first",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_RETURN_IF_ERROR(CancelledInside(n, /*others_come=*/true));
      LOCKSTEP_RETURN_IF_ERROR(CancelledInside(n, /*others_come=*/false));
    }
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lockstep
