// Groups that are aborted, healed and torn down: all ranks are freed at once, are told why, and can
// go on.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Clock = std::chrono::steady_clock;

TEST_CASE(
    "F35, F36: abort from any thread, any number of times: the first cause stays, and later calls "
    "fail at once",
    "[fault]") {
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

// The resources of this process. Memory is in pages, and 0 under a sanitizer, which keeps what is
// freed.
struct Resources {
  std::ptrdiff_t threads;
  std::ptrdiff_t files;
  long pages;

  static Resources Now() {
    const auto entries = [](const char* path) {
      return std::distance(std::filesystem::directory_iterator(path),
                           std::filesystem::directory_iterator());
    };
    Resources now{
        .threads = entries("/proc/self/task"), .files = entries("/proc/self/fd"), .pages = 0};
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    long total = 0;
    std::ifstream("/proc/self/statm") >> total >> now.pages;
#endif
    return now;
  }
};

TEST_CASE("F37: a group fails and heals a thousand times, and neither threads nor memory grow",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    Resources before{};
    for (int cycle = 0; cycle < 1000; ++cycle) {
      // By then everything that is kept for reuse exists.
      if (cycle == 300) before = Resources::Now();
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
    const Resources after = Resources::Now();
    LOCKSTEP_RETURN_IF_ERROR(Expect(after.threads == before.threads, "threads grew"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(after.files == before.files, "file descriptors grew"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(after.pages <= before.pages + 64, "memory grew"));
    return WorksWell(ranks);
  });
}

TEST_CASE("F39: a group destroyed while ranks wait frees them first", "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const std::vector<Stream> streams(3);
      LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
      std::atomic<int> inside{0};
      std::vector<absl::Status> results(2);
      std::vector<std::thread> threads;
      for (int rank = 0; rank < 2; ++rank) {
        threads.emplace_back([&, rank, comm = &barrier->communicator(rank)] {
          ++inside;
          results[rank] = AllReduceOne(*comm);
        });
      }
      while (inside < 2) std::this_thread::yield();
      // A rank may enter only while the group exists.
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
    "itself",
    "[fault]") {
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

TEST_CASE("F49: one rank on two threads at once is refused, naming the rank", "[fault]") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Stream> streams(2);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
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
      return waited[worker.rank()] = worker.rank() == 1 ? comm.Barrier() : half->Barrier();
    });
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(run, Code::kDataLoss, "gone"));
    for (int rank = 0; rank < 3; ++rank) {
      LOCKSTEP_RETURN_IF_ERROR(
          ExpectStatus(waited[rank], Code::kAborted, "rank 3 failed: DATA_LOSS: gone"));
    }
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace lockstep
