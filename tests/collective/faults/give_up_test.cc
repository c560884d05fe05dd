// A rank that gives up between two collectives: the others hear of it at once, also where no
// executor sees the rank's task end.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Clock = std::chrono::steady_clock;

const absl::Status kRefusal = absl::InvalidArgumentError("x has 5 features");
constexpr const char* kTold = "rank 1 failed: INVALID_ARGUMENT: x has 5 features";

// A group without an executor.
absl::StatusOr<std::unique_ptr<CollectiveBarrier>> HostGroup(int world_size) {
  const std::vector<Stream> streams(static_cast<std::size_t>(world_size));
  return CollectiveBarrier::Create(streams);
}

// What each rank's body returned, each on a thread of its own.
std::vector<absl::Status> OnHostThreads(CollectiveBarrier& barrier,
                                        const std::function<absl::Status(Communicator&)>& body) {
  std::vector<absl::Status> statuses(static_cast<std::size_t>(barrier.world_size()));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < barrier.world_size(); ++rank) {
    threads.emplace_back([&, rank] { statuses[rank] = body(barrier.communicator(rank)); });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

absl::Status Work(CollectiveBarrier& barrier) {
  for (const absl::Status& status : OnHostThreads(barrier, AllReduceOne)) {
    LOCKSTEP_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

TEST_CASE(
    "On the host's own threads, a rank that gives up is named to all at once, and Reset heals") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, HostGroup(3));
    // The second time each rank has a failure to forget first.
    for (int time = 0; time < 2; ++time) {
      for (const bool while_waiting : {false, true}) {
        std::atomic<bool> failed{false};
        std::vector<absl::Status> later(3);
        const auto start = Clock::now();
        const auto statuses = OnHostThreads(*barrier, [&](Communicator& comm) {
          if (comm.rank() == 1) {
            if (while_waiting) std::this_thread::sleep_for(std::chrono::milliseconds(5));
            const absl::Status given = comm.Fail(kRefusal);
            failed = true;
            later[1] = AllReduceOne(comm);
            return given;
          }
          while (!while_waiting && !failed) std::this_thread::yield();
          const absl::Status status = AllReduceOne(comm);
          later[comm.rank()] = AllReduceOne(comm);
          return status;
        });
        LOCKSTEP_RETURN_IF_ERROR(Expect(Clock::now() - start < kSoon, "the others waited"));
        LOCKSTEP_RETURN_IF_ERROR(Expect(statuses[1] == kRefusal, "not the status it was given"));
        for (const std::size_t rank : {0, 2}) {
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(statuses[rank], Code::kAborted, kTold));
        }
        for (const absl::Status& status : later) {
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kAborted, kTold));
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kAborted, "poisoned until Reset()"));
        }
        LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());
        LOCKSTEP_RETURN_IF_ERROR(Work(*barrier));
      }
    }
    return absl::OkStatus();
  });
}

TEST_CASE("Giving up with OK does nothing, and after a failure the first cause stays") {
  auto barrier = HostGroup(2);
  REQUIRE_OK(barrier);
  CHECK((*barrier)->communicator(0).Fail(absl::OkStatus()).ok());
  REQUIRE_OK((*barrier)->status());
  CHECK((*barrier)->communicator(1).Fail(kRefusal) == kRefusal);
  const absl::Status second = absl::InternalError("second");
  for (const int rank : {0, 1}) CHECK((*barrier)->communicator(rank).Fail(second) == second);
  CHECK((*barrier)->status().code() == Code::kAborted);
  CHECK(Says((*barrier)->status(), kTold));
  // An end of no rank has nobody to tell.
  CHECK((*barrier)->communicator(2).Fail(second) == second);
}

TEST_CASE("A group of one that gave up refuses calls until Reset, as larger ones do") {
  auto barrier = HostGroup(1);
  REQUIRE_OK(barrier);
  Communicator& comm = (*barrier)->communicator(0);
  CHECK(comm.Fail(kRefusal) == kRefusal);
  CHECK(Says(AllReduceOne(comm), "rank 0 failed: INVALID_ARGUMENT: x has 5 features"));
  REQUIRE_OK((*barrier)->Reset());
  REQUIRE_OK(AllReduceOne(comm));
}

TEST_CASE("A rank that missed a failure which was healed since fails nobody by giving up") {
  auto barrier = HostGroup(2);
  REQUIRE_OK(barrier);
  (*barrier)->Abort(absl::UnknownError("operator"));
  REQUIRE_OK((*barrier)->Reset());
  CHECK((*barrier)->communicator(1).Fail(kRefusal) == kRefusal);
  REQUIRE_OK((*barrier)->status());
  // It has had its error, and belongs to the group again; the other hears of the failure first.
  absl::Status stale;
  const auto statuses = OnHostThreads(**barrier, [&](Communicator& comm) {
    if (comm.rank() == 0) stale = AllReduceOne(comm);
    return AllReduceOne(comm);
  });
  CHECK(stale.code() == Code::kCancelled);
  for (const absl::Status& status : statuses) REQUIRE_OK(status);
}

TEST_CASE("A rank that Synchronize told of a failure has not missed it") {
  auto barrier = HostGroup(2);
  REQUIRE_OK(barrier);
  (*barrier)->communicator(1).Fail(kRefusal).IgnoreError();
  CHECK(Says((*barrier)->communicator(0).Synchronize(), kTold));
  REQUIRE_OK((*barrier)->Reset());
  REQUIRE_OK(Work(**barrier));
}

TEST_CASE("Giving up fails the group that was split off, and not the one it came from") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(4));
    return ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(auto half, comm.Split(worker.rank() % 2, 0));
      // Rank 3 of the task is rank 1 of its half; the other half goes on.
      const bool fails = worker.rank() % 2 == 1;
      if (worker.rank() == 3) half->Fail(kRefusal).IgnoreError();
      const absl::Status status = AllReduceOne(*half);
      LOCKSTEP_RETURN_IF_ERROR(fails ? ExpectStatus(status, Code::kAborted, kTold) : status);
      return AllReduceOne(comm);
    });
  });
}

TEST_CASE("In a task, what a rank gave up with is the first cause, before the end of its task") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2));
    std::vector<absl::Status> statuses(2);
    ranks
        .Run([&](Worker& worker, Communicator& comm) {
          absl::Status& mine = statuses[worker.rank()];
          mine = worker.rank() == 1 ? comm.Fail(kRefusal) : AllReduceOne(comm);
          return worker.rank() == 1 ? absl::InternalError("the task's own") : mine;
        })
        .IgnoreError();
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(statuses[0], Code::kAborted, kTold));
    return Heals(ranks);
  });
}

TEST_CASE("In a forked child, giving up returns what it was given and tells nobody") {
  auto barrier = HostGroup(2);
  REQUIRE_OK(barrier);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const bool same = (*barrier)->communicator(1).Fail(kRefusal) == kRefusal;
    const absl::Status later = AllReduceOne((*barrier)->communicator(1));
    _exit(same && later.code() == Code::kUnavailable ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  REQUIRE_OK(Work(**barrier));
}

}  // namespace
}  // namespace lockstep
