// ReplicaCheck: which differences between ranks it finds, and whom it names.
#include "lockstep/tests/harness/replica_check.h"

#include <cstring>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/run_ranks.h"

namespace lockstep::testing {
namespace {

// Three records on each of three ranks; what every rank said, which must be a failure everywhere or
// nowhere.
absl::Status Run(absl::FunctionRef<absl::Status(Worker&, ReplicaCheck&, int rank)> note,
                 int world_size = 3) {
  std::vector<absl::Status> each;
  RunRanks(
      {.world_size = world_size},
      [&](Worker& worker, Communicator& comm) -> absl::Status {
        ReplicaCheck replicas(worker);
        LOCKSTEP_RETURN_IF_ERROR(note(worker, replicas, comm.rank()));
        return replicas.Compare(comm);
      },
      &each)
      .IgnoreError();
  for (const absl::Status& status : each) CHECK(status.ok() == each[0].ok());
  return each[0];
}

// Notes x three times; on rank r one bit of it is changed before record `from[r]` (from 1).
absl::Status WithChanges(std::vector<int> from) {
  return Run(
      [&](Worker& worker, ReplicaCheck& replicas, int rank) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({4, 2}, DType::kFloat32));
        const char* const names[] = {"first", "second", "third"};
        for (int i = 0; i < 3; ++i) {
          // The sign of a zero, which == does not see, of the last element.
          if (from[static_cast<std::size_t>(rank)] == i + 1) x.data<float>()[7] = -0.0F;
          LOCKSTEP_RETURN_IF_ERROR(replicas.Note(names[i], x));
        }
        return absl::OkStatus();
      },
      static_cast<int>(from.size()));
}

TEST_CASE("replicas that differ are told by the first operation after which they do") {
  REQUIRE_OK(WithChanges({0, 0, 0}));
  CHECK(
      WithChanges({1, 0, 0}) ==
      absl::InternalError(
          "replicas differ after \"first\" (float32 [4, 2], record 1): ranks 1, 2 not as rank 0"));
  CHECK(
      WithChanges({0, 2, 0}) ==
      absl::InternalError(
          "replicas differ after \"second\" (float32 [4, 2], record 2): rank 1 not as ranks 0, 2"));
  CHECK(
      WithChanges({0, 0, 3}) ==
      absl::InternalError(
          "replicas differ after \"third\" (float32 [4, 2], record 3): rank 2 not as ranks 0, 1"));
  CHECK(Says(WithChanges({2, 0, 0, 2}), "record 2): ranks 1, 2 not as ranks 0, 3"));
  // What differs later is not told.
  CHECK(Says(WithChanges({0, 3, 2}),
             "\"second\" (float32 [4, 2], record 2): rank 2 not as ranks 0, 1"));
}

TEST_CASE("of ranks that differ from each other each is told apart") {
  const absl::Status status = Run(
      [](Worker& worker, ReplicaCheck& replicas, int rank) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({1}, DType::kInt32));
        LOCKSTEP_RETURN_IF_ERROR(Fill(worker, rank == 3 ? 1 : rank, x));
        return replicas.Note("x", x);
      },
      4);
  CHECK(
      Says(status, "record 1): ranks 1, 3 not as rank 0; rank 2 not as rank 0, nor as ranks 1, 3"));
}

TEST_CASE("records of other operations, types and shapes are told apart from other bits") {
  const auto run = [](absl::string_view name, Shape shape, DType dtype) {
    return Run([&](Worker& worker, ReplicaCheck& replicas, int rank) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor usual, worker.Zeros({2, 3}, DType::kFloat32));
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor other, worker.Zeros(shape, dtype));
      LOCKSTEP_RETURN_IF_ERROR(replicas.Note("first", usual));
      return rank == 0 ? replicas.Note(name, other) : replicas.Note("second", usual);
    });
  };
  REQUIRE_OK(run("second", {2, 3}, DType::kFloat32));
  for (const absl::Status& status :
       {run("other", {2, 3}, DType::kFloat32), run("second", {3, 2}, DType::kFloat32),
        run("second", {2, 3}, DType::kInt32)}) {
    CHECK(Says(status, "replicas: record 2 is of \""));
    CHECK(Says(status, "on rank 0, but of another operation on others: ranks 1, 2 not as rank 0"));
  }
}

TEST_CASE("a rank that noted more than others is named, where all else agrees") {
  const auto run = [](std::vector<int> counts, int spoiled) {
    return Run([&](Worker& worker, ReplicaCheck& replicas, int rank) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({1}, DType::kInt32));
      if (rank == spoiled) LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1, x));
      for (int i = 0; i < counts[static_cast<std::size_t>(rank)]; ++i) {
        LOCKSTEP_RETURN_IF_ERROR(replicas.Note("x", x));
      }
      return absl::OkStatus();
    });
  };
  REQUIRE_OK(run({2, 2, 2}, -1));
  REQUIRE_OK(run({0, 0, 0}, -1));
  CHECK(run({2, 2, 3}, -1) ==
        absl::InternalError("replicas: the ranks noted different numbers of operations, and the "
                            "first 2 agree: rank 2 not as ranks 0, 1"));
  CHECK(Says(run({1, 0, 0}, -1), "the first 0 agree: ranks 1, 2 not as rank 0"));
  CHECK(Says(run({1, 3, 3}, 2), "replicas differ after \"x\" (int32 [1], record 1): rank 2 not"));
}

TEST_CASE("a strided tensor is seen as its elements, of every type") {
  for (const DType dtype : kAllDTypes) {
    const auto run = [&](std::int64_t spoiled_column) {
      return Run([&](Worker& worker, ReplicaCheck& replicas, int rank) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({2, 3}, dtype));
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor column, x.Slice(1, spoiled_column, 1));
        if (rank == 1) LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1, column));
        LOCKSTEP_ASSIGN_OR_RETURN(const Tensor noted, x.Slice(1, 1, 2));
        return replicas.Note("x", noted);
      });
    };
    INFO(Name(dtype));
    REQUIRE_OK(run(0));
    CHECK(Says(run(1), "rank 1 not as ranks 0, 2"));
    CHECK(Says(run(2), "rank 1 not as ranks 0, 2"));
  }
}

TEST_CASE("a tensor that cannot be read is not noted") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  ReplicaCheck replicas(*worker);
  const absl::Status status = replicas.Note("a step", Tensor::View(nullptr, {2}, DType::kFloat32));
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(Says(status, "replicas: \"a step\": float32 [2] on cpu has a null pointer"));
  CHECK(!replicas.Note("x", Tensor::View(nullptr, {-2}, DType::kFloat32)).ok());
}

}  // namespace
}  // namespace lockstep::testing
