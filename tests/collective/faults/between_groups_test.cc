// Faults between groups, and while data moves: errors tell where each rank is, and no memory is
// touched once the call has returned.
#include <atomic>
#include <stdexcept>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

// Even ranks enter `a` first, odd ranks `b`; nobody leaves its task before all have an answer.
absl::Status EnterInOppositeOrder(int world_size) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(world_size, {.timeout = kTimeout}));
  LOCKSTEP_ASSIGN_OR_RETURN(auto other,
                            CollectiveBarrier::Create(*ranks.executor, {.timeout = kTimeout}));
  std::atomic<int> answered{0};
  const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) {
    absl::Status status =
        worker.rank() % 2 == 0 ? AllReduceOne(comm) : other->communicator(worker.rank()).Barrier();
    ++answered;
    while (answered < worker.world_size()) std::this_thread::yield();
    return status;
  });
  for (const absl::Status& status : statuses)
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kDeadlineExceeded, "did not arrive"));
  // The group that times out first finds the other's ranks where they wait.
  const auto tells = [&](const CollectiveBarrier& group, int first, absl::string_view where) {
    absl::Status told = absl::OkStatus();
    for (int rank = first; rank < world_size; rank += 2) {
      told.Update(ExpectStatus(group.status(), Code::kDeadlineExceeded,
                               absl::StrCat("; rank ", rank, " is in another group's ", where)));
    }
    return told;
  };
  if (tells(*ranks.barrier, 1, "barrier #1").ok()) return Heals(ranks);
  LOCKSTEP_RETURN_IF_ERROR(tells(*other, 0, "all_reduce #1"));
  return Heals(ranks);
}

TEST_CASE(
    "F42: ranks that enter two groups in opposite order time out, and are told who is in "
    "which",
    "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) LOCKSTEP_RETURN_IF_ERROR(EnterInOppositeOrder(n));
    return absl::OkStatus();
  });
}

// A few megabytes are slow to move under ThreadSanitizer.
#if defined(__SANITIZE_THREAD__)
constexpr std::int64_t kCount = 1 << 15;
constexpr int kRepeats = 5;
#else
constexpr std::int64_t kCount = 1 << 19;
constexpr int kRepeats = 40;
#endif

// All-reduces of memory that is gone as soon as the call has failed, until one fails.
absl::Status MoveUntilItFails(Communicator& comm, std::atomic<int>& moving) {
  for (;;) {
    const auto memory = std::make_unique<float[]>(kCount);
    const Tensor tensor = Tensor::View(memory.get(), {kCount}, DType::kFloat32);
    ++moving;
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
  }
}

// Returns soon after the ranks have begun to move data, at a different moment each time.
void AwaitMoving(const std::atomic<int>& moving, int repeat) {
  while (moving < 8) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::microseconds(repeat * 37 % 1500));
}

// On the CPU. On GPUs, where work may outlast the call, no test holds the same.
TEST_CASE("F46: a task throws while other ranks move data: nothing is freed under them",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : {3, 4, 8}) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n));
      for (int repeat = 0; repeat < kRepeats; ++repeat) {
        std::atomic<int> moving{0};
        std::vector<absl::Status> others(static_cast<std::size_t>(n - 1));
        const absl::Status run = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
          // The last rank is in no group with those that move.
          const bool throws = worker.rank() == n - 1;
          LOCKSTEP_ASSIGN_OR_RETURN(auto half, comm.Split(throws ? 1 : 0, worker.rank()));
          if (!throws) {
            return others[worker.rank()] = MoveUntilItFails(*half, moving);
          }
          AwaitMoving(moving, repeat);
          throw std::runtime_error("boom");
        });
        LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(run, Code::kInternal, "threw std::runtime_error"));
        for (const absl::Status& other : others)
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(other, Code::kAborted, "boom"));
        LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
      }
      LOCKSTEP_RETURN_IF_ERROR(WorksWell(ranks));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("F35: an abort while ranks move data fails the round on all of them, or the next",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n));
      for (int repeat = 0; repeat < kRepeats; ++repeat) {
        std::atomic<int> moving{0};
        std::thread outsider([&] {
          AwaitMoving(moving, repeat);
          ranks.barrier->Abort(absl::AbortedError("enough"));
        });
        std::vector<std::uint64_t> rounds(static_cast<std::size_t>(n));
        const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) {
          const absl::Status status = MoveUntilItFails(comm, moving);
          rounds[worker.rank()] = comm.stats().num_collectives;
          return status;
        });
        outsider.join();
        for (std::size_t rank = 0; rank < statuses.size(); ++rank)
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(statuses[rank], Code::kAborted, "enough"));
        LOCKSTEP_RETURN_IF_ERROR(Expect(rounds == std::vector(rounds.size(), rounds[0]),
                                        "some ranks completed the round that failed"));
        LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
      }
      LOCKSTEP_RETURN_IF_ERROR(WorksWell(ranks));
    }
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lockstep
