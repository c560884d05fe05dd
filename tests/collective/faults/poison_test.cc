// What a failed group answers calls until it is reset: one text, on every rank.
#include <atomic>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Rank = std::function<absl::Status(Worker&, Communicator&)>;

// Everything a rank can ask of its group, and the answer to each call.
std::vector<std::pair<const char*, absl::Status>> AskEverything(Communicator& comm) {
  std::int64_t one = 1;
  const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
  const Tensor broken = Tensor::View(nullptr, {1}, DType::kInt64);
  return {{"barrier", comm.Barrier()},
          {"synchronize", comm.Synchronize()},
          {"all_reduce", comm.AllReduce(broken, broken)},
          {"all_reduce", comm.AllReduce(tensor, tensor)},
          {"split", comm.Split(0, 0).status()},
          {"all_reduce", comm.AllReduceAsync(tensor, tensor).status()},
          {"broadcast", comm.Broadcast(tensor, tensor, 99)},
          {"synchronize", comm.Synchronize()},
          {"all_gather", comm.AllGatherAsync(tensor, tensor).status()}};
}

// Every call of this rank is told the one text.
absl::Status ToldAlike(Communicator& comm, const absl::Status& cause) {
  for (const auto& [call, told] : AskEverything(comm)) {
    const std::string text =
        absl::StrCat(call, ": the group is poisoned until Reset(); first cause: ",
                     absl::StatusCodeToString(cause.code()), ": ", cause.message());
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(told, Code::kAborted, text));
    LOCKSTEP_RETURN_IF_ERROR(Expect(told.message() == text, told.ToString()));
  }
  return absl::OkStatus();
}

// The ways in which a group of three can fail; rank 1 is the culprit.
struct Failure {
  const char* what;
  Code code;
  const char* cause;
  Rank body;
};

std::vector<Failure> Failures(CollectiveBarrier*& barrier) {
  const auto one = [](Communicator& comm) { return AllReduceOne(comm); };
  return {
      {"a task fails", Code::kAborted, "rank 1 failed: DATA_LOSS: gone",
       [one](Worker& worker, Communicator& comm) {
         return worker.rank() == 1 ? absl::DataLossError("gone") : one(comm);
       }},
      {"a task ends", Code::kAborted, "rank 1 ended the task",
       [one](Worker& worker, Communicator& comm) {
         return worker.rank() == 1 ? absl::OkStatus() : one(comm);
       }},
      {"a host aborts", Code::kAborted, "enough",
       [one, &barrier](Worker& worker, Communicator& comm) {
         if (worker.rank() == 1) barrier->Abort(absl::UnknownError("enough"));
         return one(comm);
       }},
      {"a rank refuses", Code::kAborted, "rank 1 refused its call: broadcast: root 7",
       [one](Worker& worker, Communicator& comm) {
         std::int64_t value = 1;
         const Tensor tensor = Tensor::View(&value, {1}, DType::kInt64);
         return worker.rank() == 1 ? comm.Broadcast(tensor, tensor, 7) : one(comm);
       }},
      {"ranks differ", Code::kFailedPrecondition, "differ in operation",
       [one](Worker& worker, Communicator& comm) {
         return worker.rank() == 1 ? comm.Barrier() : one(comm);
       }},
  };
}

TEST_CASE(
    "after a failure every call of every rank is told the first cause and what to do, in one text, "
    "in this Run and in later ones, until the group is reset") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3));
    CollectiveBarrier* barrier = ranks.barrier.get();
    for (const Failure& failure : Failures(barrier)) {
      for (int repeat = 0; repeat < 5; ++repeat) {
        (void)ranks.Run(failure.body);
        const absl::Status cause = ranks.barrier->status();
        LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(cause, failure.code, failure.cause));
        // Asked by the caller, between two Runs.
        for (int rank = 0; rank < 3 && repeat % 2 == 0; ++rank)
          LOCKSTEP_RETURN_IF_ERROR(ToldAlike(ranks.barrier->communicator(rank), cause));
        for (int run = 0; run < 3; ++run) {
          LOCKSTEP_RETURN_IF_ERROR(ranks.Run(
              [&](Worker&, Communicator& comm) -> absl::Status { return ToldAlike(comm, cause); }));
        }
        // A rank that returns what it is told changes nothing.
        const absl::Status run =
            ranks.Run([](Worker&, Communicator& comm) { return comm.Barrier(); });
        LOCKSTEP_RETURN_IF_ERROR(
            ExpectStatus(run, Code::kAborted, "barrier: the group is poisoned"));
        LOCKSTEP_RETURN_IF_ERROR(Expect(ranks.barrier->status() == cause, failure.what));
        LOCKSTEP_RETURN_IF_ERROR(Heals(ranks));
      }
    }
    return absl::OkStatus();
  });
}

TEST_CASE("after a time-out every rank is told one text, whichever rank's wait ended first") {
  SURVIVES([]() -> absl::Status {
    for (int repeat = 0; repeat < 5; ++repeat) {
      LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(3, {.timeout = absl::Milliseconds(20)}));
      std::atomic<int> returned{0};
      const auto statuses = ranks.RunEach([&](Worker& worker, Communicator& comm) {
        while (worker.rank() == 1 && returned < 2) std::this_thread::yield();
        const absl::Status status = comm.Barrier();
        ++returned;
        return status;
      });
      const absl::Status cause = ranks.barrier->status();
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(cause, Code::kDeadlineExceeded, "did not arrive"));
      // It is not in the round, and is told like a rank that calls again.
      LOCKSTEP_RETURN_IF_ERROR(
          ExpectStatus(statuses[1], Code::kAborted,
                       absl::StrCat("poisoned until Reset(); first cause: DEADLINE_EXCEEDED: ",
                                    cause.message())));
      LOCKSTEP_RETURN_IF_ERROR(ranks.Run(
          [&](Worker&, Communicator& comm) -> absl::Status { return ToldAlike(comm, cause); }));
    }
    return absl::OkStatus();
  });
}

TEST_CASE(
    "ranks on the host's own threads are told the same, whether or not they know of the failure") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Stream> streams(3);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
    barrier->Abort(absl::UnknownError("enough"));
    const absl::Status cause = barrier->status();
    std::vector<absl::Status> results(3);
    for (int repeat = 0; repeat < 2; ++repeat) {
      std::vector<std::thread> threads;
      for (std::size_t rank = 0; rank < 3; ++rank) {
        threads.emplace_back([&, rank] {
          results[rank].Update(ToldAlike(barrier->communicator(static_cast<int>(rank)), cause));
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
    for (const absl::Status& result : results) LOCKSTEP_RETURN_IF_ERROR(result);
    return absl::OkStatus();
  });
}

TEST_CASE("a rank that hears of a failure by a refused call, or by Synchronize, is told it too") {
  SURVIVES([]() -> absl::Status {
    std::int64_t one = 1;
    const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
    const std::vector<Stream> streams(2);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
    barrier->Abort(absl::UnknownError("enough"));
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(barrier->communicator(0).Broadcast(tensor, tensor, 7),
                                          Code::kAborted,
                                          "broadcast: the group is poisoned until"));
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(barrier->communicator(1).Synchronize(), Code::kAborted,
                                          "synchronize: the group is poisoned until Reset()"));
    // They know of the failure, so the reset does not make them stale.
    LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());
    std::thread other([&] { (void)barrier->communicator(1).Barrier(); });
    const absl::Status healed = barrier->communicator(0).Barrier();
    other.join();
    return healed;
  });
}

TEST_CASE("a refused call from before a reset is stale like any other, and disturbs nobody") {
  SURVIVES([]() -> absl::Status {
    std::int64_t one = 1;
    const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
    const std::vector<Stream> streams(2);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
    barrier->Abort(absl::UnknownError("enough"));
    LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());
    for (const int rank : {0, 1}) {
      LOCKSTEP_RETURN_IF_ERROR(
          ExpectStatus(barrier->communicator(rank).Broadcast(tensor, tensor, 7), Code::kCancelled,
                       absl::StrCat("broadcast: rank ", rank, " missed a failure")));
    }
    LOCKSTEP_RETURN_IF_ERROR(barrier->status());
    // The next one is this round's, and fails it.
    absl::Status waited;
    std::thread other([&] { waited = barrier->communicator(1).Barrier(); });
    const absl::Status refused = barrier->communicator(0).Broadcast(tensor, tensor, 7);
    other.join();
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(refused, Code::kInvalidArgument, "root 7"));
    return ExpectStatus(waited, Code::kAborted, "rank 0 refused its call");
  });
}

}  // namespace
}  // namespace lockstep
