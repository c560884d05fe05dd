// RunRanks: whose failure comes back, with which text, and what becomes of a hang.
#include "lockstep/tests/harness/run_ranks.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <set>
#include <stdexcept>
#include <thread>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep::testing {
namespace {

using Code = absl::StatusCode;

// Six sums and a barrier.
absl::Status SixSums(Worker& worker, Communicator& comm) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({8}, DType::kFloat32));
  for (int round = 0; round < 6; ++round) {
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, round, x));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));
    if (*x.data<float>() != static_cast<float>(round * comm.world_size()))
      return absl::InternalError("wrong sum");
  }
  return comm.Barrier();
}

TEST_CASE("a body runs once on every rank, on threads of their own and all at once") {
  for (const int world_size : {1, 2, 5}) {
    std::vector<int> ranks(static_cast<std::size_t>(world_size), -1);
    std::vector<std::thread::id> threads(ranks.size());
    std::vector<absl::Status> each = {absl::UnknownError("of the run before")};
    REQUIRE_OK(RunRanks(
        {.world_size = world_size},
        [&](Worker& worker, Communicator& comm) {
          const auto rank = static_cast<std::size_t>(worker.rank());
          ranks[rank] = comm.world_size() == worker.world_size() ? comm.rank() : -2;
          threads[rank] = std::this_thread::get_id();
          return comm.Barrier();
        },
        &each));
    for (int rank = 0; rank < world_size; ++rank)
      CHECK(ranks[static_cast<std::size_t>(rank)] == rank);
    CHECK(std::set<std::thread::id>(threads.begin(), threads.end()).size() == threads.size());
    CHECK(each == std::vector<absl::Status>(threads.size(), absl::OkStatus()));
  }
}

TEST_CASE("the first failure comes back with its code, its text and its rank") {
  for (const int victim : {0, 2}) {
    absl::Status failure = absl::NotFoundError("a text");
    failure.SetPayload("url", absl::Cord("payload"));
    std::vector<absl::Status> each;
    const absl::Status status = RunRanks(
        {.world_size = 3},
        [&](Worker& worker, Communicator& comm) {
          return worker.rank() == victim ? failure : comm.Barrier();
        },
        &each);
    CHECK(status.code() == Code::kNotFound);
    CHECK(status.message() == absl::StrCat("rank ", victim, ": a text"));
    CHECK(status.GetPayload("url") == absl::Cord("payload"));
    CHECK(each[static_cast<std::size_t>(victim)] == failure);
    CHECK(each[1].code() == Code::kAborted);
  }
}

TEST_CASE("a rank that throws or ends its thread is told by its rank") {
  const auto run = [](absl::FunctionRef<void()> end, std::vector<absl::Status>& each) {
    return RunRanks(
        {.world_size = 2},
        [&](Worker& worker, Communicator& comm) -> absl::Status {
          if (worker.rank() == 1) end();
          return comm.Barrier();
        },
        &each);
  };
  std::vector<absl::Status> each;
  const absl::Status thrown = run([] { throw std::runtime_error("a reason"); }, each);
  CHECK(thrown == absl::InternalError("rank 1 threw std::runtime_error: a reason"));
  CHECK(each[1] == absl::InternalError("the rank threw: a reason"));
  CHECK(each[0].code() == Code::kAborted);
  CHECK(Says(run([] { throw 7; }, each), "rank 1 threw something that is no std::exception"));
  CHECK(each[1] == absl::InternalError("the rank threw something that is no std::exception"));
  CHECK(Says(run([] { pthread_exit(nullptr); }, each),
             "ABORTED: rank 1's thread ended inside its task"));
  CHECK(each[1] == absl::InternalError("the rank's thread ended in its body"));
}

TEST_CASE("ranks run under changing delays, and the results are exact") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    REQUIRE_OK(RunRanks({.world_size = 3, .perturbation = {.seed = seed}}, SixSums));
  }
}

TEST_CASE("every rank is delayed as its seed says") {
  const RunRanksOptions options = {.world_size = 3, .perturbation = {.seed = 4}};
  REQUIRE_OK(RunRanks(options, [&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(SixSums(worker, comm));
    absl::Duration drawn;
    for (std::uint64_t n = 0; n < 14; ++n) drawn += DelayOf(options.perturbation, comm.rank(), n);
    LOCKSTEP_RETURN_IF_ERROR(Expect(drawn > absl::ZeroDuration(), "no delay was drawn"));
    return Expect(dynamic_cast<PerturbedCommunicator&>(comm).delayed() == drawn, "other delays");
  }));
}

TEST_CASE("a fault hits the call that it was meant for, and every rank hears of it") {
  const struct {
    Fault fault;
    Code of_victim;
    const char* victim_says;
    Code of_others;
    const char* others_say;
  } cases[] = {
      {{.rank = 2, .at = CollectiveKind::kAllReduce, .nth = 5, .kind = FaultKind::kFail},
       Code::kInternal,
       "rank 2 at its all_reduce (float32 x 8, sum) number 5",
       Code::kAborted,
       "rank 2 failed: INTERNAL: injected fault"},
      {{.rank = 1, .at = CollectiveKind::kBarrier, .nth = 1, .kind = FaultKind::kThrow},
       Code::kInternal,
       "the rank threw",
       Code::kAborted,
       "injected fault: rank 1 at its barrier number 1"},
      {{.rank = 0, .nth = 3, .kind = FaultKind::kWrongCount},
       Code::kFailedPrecondition,
       "differ in count",
       Code::kFailedPrecondition,
       "rank 0: all_reduce (float32 x 7, sum)"},
      {{.rank = 0, .nth = 3, .kind = FaultKind::kWrongDtype},
       Code::kFailedPrecondition,
       "differ in element type",
       Code::kFailedPrecondition,
       "rank 0: all_reduce (int32 x 8, sum)"},
      {{.rank = 1, .nth = 2, .kind = FaultKind::kNeverArrive, .delay = absl::Seconds(4)},
       Code::kInternal,
       "never arrived",
       Code::kDeadlineExceeded,
       "rank 1 did not arrive within 1 s"},
  };
  for (const auto& [fault, of_victim, victim_says, of_others, others_say] : cases) {
    std::vector<absl::Status> each;
    const RunRanksOptions options = {.world_size = 3,
                                     .barrier = {.timeout = absl::Seconds(1)},
                                     .perturbation = {.faults = {fault}}};
    CHECK(!RunRanks(options, SixSums, &each).ok());
    for (int rank = 0; rank < 3; ++rank) {
      const absl::Status& status = each[static_cast<std::size_t>(rank)];
      INFO(rank << ": " << status.ToString());
      CHECK(status.code() == (rank == fault.rank ? of_victim : of_others));
      CHECK(Says(status, rank == fault.rank ? victim_says : others_say));
    }
  }
}

TEST_CASE("a rank that is late is waited for: nobody leaves before it has come") {
  using Clock = std::chrono::steady_clock;
  constexpr auto kDelay = std::chrono::milliseconds(50);
  std::vector<Clock::time_point> times(2);
  REQUIRE_OK(RunRanks({.perturbation = {.faults = {{.rank = 1,
                                                    .nth = 2,
                                                    .kind = FaultKind::kLate,
                                                    .delay = absl::FromChrono(kDelay)}}}},
                      [&](Worker&, Communicator& comm) -> absl::Status {
                        LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
                        if (comm.rank() == 1) times[1] = Clock::now();
                        LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
                        if (comm.rank() == 0) times[0] = Clock::now();
                        return absl::OkStatus();
                      }));
  CHECK(times[0] - times[1] >= kDelay);
}

TEST_CASE("options that cannot be are refused, and nothing runs") {
  const struct {
    RunRanksOptions options;
    const char* says;
  } cases[] = {
      {{.world_size = 0}, "RunRanks: world_size is 0; it must be at least 1"},
      {{.world_size = -2}, "RunRanks: world_size is -2"},
      {{.world_size = 2000}, "world_size 2000"},
      {{.world_size = 1, .devices = {Device::Cpu(), Device::Cpu()}}, "world_size 1 over 2 devices"},
      {{.devices = {}}, "no device given"},
      {{.barrier = {.timeout = absl::ZeroDuration()}}, "timeout"},
      {{.limit = absl::ZeroDuration()}, "RunRanks: limit is 0; it must be finite, and more than 0"},
      {{.limit = absl::Seconds(-1)}, "RunRanks: limit is -1s"},
      {{.limit = absl::InfiniteDuration()}, "RunRanks: limit is inf"},
      {{.perturbation = {.faults = {{.rank = 2}}}},
       "RunRanks: perturbation: a fault of rank 2 in a group of 2"},
  };
  for (const auto& [options, says] : cases) {
    std::atomic<int> calls = 0;
    std::vector<absl::Status> each(3);
    const absl::Status status = RunRanks(
        options,
        [&](Worker&, Communicator&) {
          ++calls;
          return absl::OkStatus();
        },
        &each);
    INFO(status.ToString());
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, says));
    CHECK(calls == 0);
    CHECK(each.empty());
  }
  // Longer than a clock can count.
  REQUIRE_OK(RunRanks({.limit = absl::Hours(10'000'000)}, SixSums));
}

TEST_CASE("ranks that hang are freed, and the stacks of the hang come back") {
  std::atomic<bool> freed = false;
  const absl::Status status =
      RunRanks({.barrier = {.timeout = absl::Hours(1)}, .limit = absl::Milliseconds(300)},
               [&](Worker& worker, Communicator& comm) -> absl::Status {
                 if (worker.rank() == 0) {
                   const absl::Status hung = comm.Barrier();
                   freed = true;
                   return hung;
                 }
                 // Not before the other has been freed.
                 while (!freed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                 return absl::OkStatus();
               });
  CHECK(status.code() == Code::kDeadlineExceeded);
  CHECK(Says(status, "did not finish within 300ms; where they hung:\n"));
  CHECK((Says(status, "RunRanks") || Says(status, "(no stacks: ")));
  CHECK(Says(status, "what came out in the end: ABORTED: rank 0: barrier"));
}

TEST_CASE("ranks that hang in a group that was split off are freed too") {
  std::atomic<bool> freed = false;
  const absl::Status status =
      RunRanks({.barrier = {.timeout = absl::Hours(1)}, .limit = absl::Milliseconds(300)},
               [&](Worker& worker, Communicator& comm) -> absl::Status {
                 LOCKSTEP_ASSIGN_OR_RETURN(const auto part, comm.Split(0, worker.rank()));
                 if (worker.rank() == 0) {
                   const absl::Status hung = part->Barrier();
                   freed = true;
                   return hung;
                 }
                 while (!freed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                 return absl::OkStatus();
               });
  CHECK(status.code() == Code::kDeadlineExceeded);
  CHECK(Says(status, "where they hung:\n"));
}

TEST_CASE("a body that no abort can free ends the process, and the stacks are printed") {
  std::FILE* const printed = std::tmpfile();
  REQUIRE(printed != nullptr);
  const absl::Status status = RunInChild(absl::Seconds(200), [&] {
    // Catch2's own handler is not asked.
    std::signal(SIGABRT, SIG_DFL);
    dup2(fileno(printed), STDERR_FILENO);
    return RunRanks({.limit = absl::Milliseconds(50)}, [](Worker& worker, Communicator&) {
      while (worker.rank() == 1) pause();
      return absl::OkStatus();
    });
  });
  CHECK(Says(status, "the child died of Aborted"));
  std::rewind(printed);
  char line[100] = {};
  CHECK(std::fgets(line, sizeof(line), printed) != nullptr);
  CHECK(line == std::string("the ranks hang, and an abort did not free them\n"));
  CHECK(std::fgets(line, sizeof(line), printed) != nullptr);
  std::fclose(printed);
}

TEST_CASE("ranks may run ranks of their own") {
  REQUIRE_OK(RunRanks({}, [](Worker&, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(RunRanks({.world_size = 3}, SixSums));
    return comm.Barrier();
  }));
}

}  // namespace
}  // namespace lockstep::testing
