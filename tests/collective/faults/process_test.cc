// What happens to the whole process: it forks, stands still, or exits while ranks wait.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Clock = std::chrono::steady_clock;

void Nap() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

// Set in a child forked beside other threads: the leak checker cannot find their stacks there, and
// would report all that they hold.
bool leaks_unknown = false;

// In a forked child: every call on what the parent made is refused, and all of it can be freed.
absl::Status AllIsRefused(Ranks& ranks) {
  leaks_unknown = true;
  const auto start = Clock::now();
  Communicator& comm = ranks.barrier->communicator(0);
  std::int64_t one = 1;
  const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
  ranks.barrier->Abort(absl::AbortedError("from the child"));
  const absl::Status refused[] = {
      comm.Barrier(),
      comm.AllReduce(tensor, tensor),
      comm.AllReduce(tensor, Tensor()),
      comm.AllReduceAsync(tensor, tensor).status(),
      comm.Split(0, 0).status(),
      comm.Synchronize(),
      ranks.barrier->Reset(),
      ranks.barrier->status(),
      ranks.executor->Run([](Worker&) { return absl::OkStatus(); }),
      CollectiveBarrier::Create(*ranks.executor).status(),
  };
  for (const absl::Status& status : refused)
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, Code::kUnavailable, "forked child"));
  ranks.barrier.reset();
  ranks.executor.reset();
  LOCKSTEP_RETURN_IF_ERROR(Expect(Clock::now() - start < kSoon, "the child waited"));
#if !defined(__SANITIZE_THREAD__)  // which allows such a child no threads
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks own, Ranks::Create(2));
  return WorksWell(own);
#else
  return absl::OkStatus();
#endif
}

// The last rank stays away from a round until `fork` has returned OK, on its own thread or on one
// of the host's.
absl::Status ForksDuringARound(int world_size, bool on_rank_thread,
                               const std::function<absl::Status(Ranks&)>& fork) {
  LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(world_size));
  LOCKSTEP_RETURN_IF_ERROR(ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    if (worker.rank() == world_size - 1) {
      Nap();
      absl::Status status;
      if (on_rank_thread) {
        status = fork(ranks);
      } else {
        std::thread([&] { status = fork(ranks); }).join();
      }
      LOCKSTEP_RETURN_IF_ERROR(status);
    }
    return AllReduceOne(comm);
  }));
  return WorksWell(ranks);
}

TEST_CASE("F43: in a forked child every call is refused at once, and the parent goes on",
          "[fault]") {
  SURVIVES([]() -> absl::Status {
    for (const int n : kWorldSizes) {
      for (const bool on_rank_thread : {false, true}) {
        LOCKSTEP_RETURN_IF_ERROR(ForksDuringARound(n, on_rank_thread, [](Ranks& ranks) {
          return RunInChild(kLimit, [&] { return AllIsRefused(ranks); });
        }));
      }
    }
    return absl::OkStatus();
  });
}

// ThreadSanitizer crashes when a thread that forked ends in the child.
#if !defined(__SANITIZE_THREAD__)
TEST_CASE("F43: a child forked inside a task ends when its task does", "[fault]") {
  SURVIVES([]() -> absl::Status {
    return ForksDuringARound(3, /*on_rank_thread=*/true, [](Ranks&) -> absl::Status {
      const pid_t child = fork();
      leaks_unknown = child == 0;
      if (child == 0) return absl::UnknownError("out of the task");
      int how = 0;
      waitpid(child, &how, 0);
      return Expect(WIFEXITED(how) && WEXITSTATUS(how) == 0,
                    absl::StrCat("the child ended with ", how));
    });
  });
}
#endif

// Stops this process from outside for three times as long as the ranks wait for each other.
pid_t StartStopper(int times) {
  const pid_t here = getpid();
  const pid_t stopper = fork();
  if (stopper != 0) return stopper;
  for (int i = 0; i < times; ++i) {
    usleep(70'000);
    kill(here, SIGSTOP);
    usleep(300'000);
    kill(here, SIGCONT);
  }
  _exit(0);
}

// Rounds, small and large ones, some ranks late, until one fails or rank 0 sees `stopper` end.
absl::Status RoundsUntil(pid_t stopper, Communicator& comm, std::vector<std::int64_t>& data,
                         std::int64_t& num_ok, bool& over) {
  for (;; ++num_ok) {
    if (num_ok % 3 == 0 && comm.rank() == num_ok % comm.world_size())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    data[0] = comm.rank() == 0 && waitpid(stopper, nullptr, WNOHANG) != 0 ? 1 : 0;
    const std::int64_t count = num_ok % 2 == 0 ? 1 : static_cast<std::int64_t>(data.size());
    const Tensor tensor = Tensor::View(data.data(), {count}, DType::kInt64);
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
    over = data[0] != 0;
    if (over) return absl::OkStatus();
  }
}

TEST_CASE(
    "F44: a process that stands still for longer than the time-out goes on, or fails the "
    "same on every rank",
    "[fault]") {
  for (const int n : kWorldSizes) {
    SURVIVES([n]() -> absl::Status {
      const pid_t stopper = StartStopper(4);
      const auto size = static_cast<std::size_t>(n);
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks,
                                Ranks::Create(n, {.timeout = absl::Milliseconds(100)}));
      std::vector<std::vector<std::int64_t>> data(size, std::vector<std::int64_t>(1 << 17));
      bool over[8] = {};
      while (!over[0]) {
        std::vector<std::int64_t> num_ok(size);
        const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) {
          const auto rank = static_cast<std::size_t>(worker.rank());
          return RoundsUntil(stopper, comm, data[rank], num_ok[rank], over[rank]);
        });
        const absl::Status cause = ranks.barrier->status();
        for (std::size_t rank = 0; rank < size; ++rank) {
          LOCKSTEP_RETURN_IF_ERROR(Expect(num_ok[rank] == num_ok[0], "some ranks went on"));
          // A late rank is told in other words, which contain the first cause.
          const absl::Status& status = statuses[rank];
          LOCKSTEP_RETURN_IF_ERROR(Expect(status.ok() == cause.ok(), "the verdicts differ"));
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, status.code(), cause.message()));
        }
        // The last rank may have arrived just as time ran out.
        if (!cause.ok())
          LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(cause, Code::kDeadlineExceeded, "0.1 s"));
        LOCKSTEP_RETURN_IF_ERROR(ranks.barrier->Reset());
      }
      return WorksWell(ranks);
    });
  }
}

constexpr int kExitCode = 7;

// `body` calls std::exit(kExitCode) while ranks wait, and the process ends with that, long before
// the ranks would have waited long enough.
void ExitsAtOnce(absl::FunctionRef<absl::Status()> body) {
  REQUIRE_OK(ExpectStatus(RunInChild(absl::Seconds(20), body), Code::kInternal,
                          absl::StrCat("the child exited with ", kExitCode, ";")));
}

// All ranks but the last wait; the last exits.
absl::Status RankExits(Ranks& ranks) {
  return ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    if (worker.rank() < worker.world_size() - 1) return AllReduceOne(comm);
    Nap();
    std::exit(kExitCode);
  });
}

TEST_CASE("F48: a rank's thread exits the process while the others wait", "[fault]") {
  for (const int n : kWorldSizes) {
    ExitsAtOnce([n]() -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(n));
      return RankExits(ranks);
    });
    // Destroyed while the process exits, on that rank's thread.
    ExitsAtOnce([n]() -> absl::Status {
      static Ranks ranks;
      LOCKSTEP_ASSIGN_OR_RETURN(ranks, Ranks::Create(n));
      return RankExits(ranks);
    });
  }
}

TEST_CASE("F48: the main thread exits the process while ranks wait", "[fault]") {
  for (const int n : kWorldSizes) {
    for (const bool destroyed : {false, true}) {
      ExitsAtOnce([n, destroyed]() -> absl::Status {
        static Ranks doomed;
        static Ranks* kept = new Ranks;
        static std::atomic<bool> freed{false};
        static std::atomic<int> started{0};
        Ranks& ranks = destroyed ? doomed : *kept;
        LOCKSTEP_ASSIGN_OR_RETURN(ranks, Ranks::Create(n));
        std::thread([&ranks] {
          (void)ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
            ++started;
            if (worker.rank() == worker.world_size() - 1) {
              while (!freed) Nap();
              return absl::OkStatus();
            }
            const absl::Status status = AllReduceOne(comm);
            freed = true;
            return status;
          });
        }).detach();
        while (started < n) Nap();
        Nap();
        std::exit(kExitCode);
      });
    }
  }
}

TEST_CASE("F48: the process exits while the host's own threads wait", "[fault]") {
  ExitsAtOnce([]() -> absl::Status {
    static std::unique_ptr<CollectiveBarrier> barrier;
    LOCKSTEP_ASSIGN_OR_RETURN(barrier, CollectiveBarrier::Create(std::vector<Stream>(3)));
    for (int rank = 0; rank < 2; ++rank)
      std::thread([rank] { (void)AllReduceOne(barrier->communicator(rank)); }).detach();
    Nap();
    std::exit(kExitCode);
  });
}

}  // namespace
}  // namespace lockstep

extern "C" __attribute__((visibility("default"))) int __lsan_is_turned_off() {
  return lockstep::leaks_unknown ? 1 : 0;
}
