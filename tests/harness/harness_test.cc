// The public harness itself: that it finds what it should find, and says it well.
#include <chrono>
#include <thread>

#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/gradient_check.h"
#include "lockstep/tests/harness/replica_check.h"
#include "lockstep/tests/harness/run_ranks.h"

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

TEST_CASE("ranks run under changing delays, and the results are exact") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    REQUIRE_OK(RunRanks({.world_size = 3, .perturbation = {.seed = seed}}, SixSums));
  }
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

TEST_CASE("a rank that is late is waited for") {
  REQUIRE_OK(RunRanks(
      {.perturbation = {.faults = {{.rank = 1, .nth = 4, .kind = FaultKind::kLate}}}}, SixSums));
}

TEST_CASE("ranks that hang are freed, and the stacks of the hang come back") {
  const absl::Status status =
      RunRanks({.barrier = {.timeout = absl::Hours(1)}, .limit = absl::Milliseconds(300)},
               [](Worker& worker, Communicator& comm) -> absl::Status {
                 if (worker.rank() == 0) return comm.Barrier();
                 std::this_thread::sleep_for(std::chrono::seconds(3));
                 return absl::OkStatus();
               });
  CHECK(status.code() == Code::kDeadlineExceeded);
  CHECK(Says(status, "did not finish within 300ms; where they hung:"));
}

TEST_CASE("a difference is told by its first index, in units of the last place") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  float is[] = {1, 2, 3, 4, 5, 6};
  float should_be[] = {1, 2, 3, 4, 5, 6};
  const Tensor actual = Tensor::View(is, {2, 3}, DType::kFloat32);
  const Tensor expected = Tensor::View(should_be, {2, 3}, DType::kFloat32);
  REQUIRE_OK(ExpectClose(*worker, "y", actual, expected, 0));
  is[4] = std::nextafter(std::nextafter(5.0f, 9.0f), 9.0f);
  REQUIRE_OK(ExpectClose(*worker, "y", actual, expected, 2));
  const absl::Status far = ExpectClose(*worker, "y", actual, expected, 1);
  CHECK(Says(far, "y: element [1, 1] is 5, expected 5; 1 of 6 elements differ by more than 1 ULP"));
  CHECK(Says(far, "by up to 2"));
  is[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(Says(ExpectClose(*worker, "y", actual, expected, 1e9), "element [0, 2] is nan"));
  should_be[2] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE_OK(ExpectClose(*worker, "y", actual, expected, 2));
  const auto narrow = actual.Slice(1, 0, 2);
  REQUIRE_OK(narrow);
  CHECK(Says(ExpectClose(*worker, "y", *narrow, expected, 2), "expected float32 [2, 3]"));
}

// An unsharded layer's result and a column-parallel one's.
absl::Status ColumnsEqualTheWhole(Worker& worker, Communicator& comm, double spoiled_by) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto whole, Linear::Create(worker, {.in_features = 6, .out_features = 7, .seed = 3}));
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto part,
      ColumnParallelLinear::Create(worker, comm, {.in_features = 6, .out_features = 7, .seed = 3}));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({4, 6}, DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 0.5, x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected, whole.Forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, part.Forward(x));
  if (comm.rank() == 1) y.data<float>()[0] += static_cast<float>(spoiled_by);
  return ExpectGathersTo(worker, comm, "columns", y, -1, expected, 4);
}

TEST_CASE("a sharded result is gathered and compared with the whole") {
  const auto run = [](double spoiled_by) {
    return RunRanks({.world_size = 2}, [&](Worker& worker, Communicator& comm) {
      return ColumnsEqualTheWhole(worker, comm, spoiled_by);
    });
  };
  REQUIRE_OK(run(0));
  CHECK(Says(run(1), "columns: element [0, 4] is"));
}

TEST_CASE("a right gradient passes, a wrong one is found on its rank and index") {
  for (const double factor : {1.0, 1.5}) {
    const absl::Status status =
        RunRanks({.world_size = 3}, [&](Worker& worker, Communicator& comm) -> absl::Status {
          // Each rank has its own x; the loss is the sum over ranks of sum of squares.
          LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x,
                                    worker.Empty({comm.rank() + 1}, DType::kFloat64));
          LOCKSTEP_ASSIGN_OR_RETURN(const Tensor gradient,
                                    worker.Empty({comm.rank() + 1}, DType::kFloat64));
          for (std::int64_t i = 0; i < x.size(); ++i) {
            x.data<double>()[i] = static_cast<double>(i + 1);
            gradient.data<double>()[i] = 2.0 * static_cast<double>(i + 1);
          }
          if (comm.rank() == 2) gradient.data<double>()[1] *= factor;
          const auto loss = [&]() -> absl::StatusOr<double> {
            double sum = 0;
            for (std::int64_t i = 0; i < x.size(); ++i)
              sum += x.data<double>()[i] * x.data<double>()[i];
            const Tensor total = Tensor::View(&sum, {1}, DType::kFloat64);
            LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(total, total));
            return sum;
          };
          return CheckGradient(worker, comm, "squares", x, gradient, loss, {.step = 1e-4});
        });
    if (factor == 1.0) REQUIRE_OK(status);
    if (factor != 1.0) CHECK(Says(status, "squares: on rank 2 the gradient of element 1 of"));
  }
}

TEST_CASE("replicas that differ are told by the first operation after which they do") {
  const auto run = [](int spoiled_rank, bool renamed) {
    return RunRanks({.world_size = 3}, [&](Worker& worker, Communicator& comm) -> absl::Status {
      ReplicaCheck replicas(worker);
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Zeros({4, 2}, DType::kFloat32));
      LOCKSTEP_RETURN_IF_ERROR(replicas.Note("first", x));
      if (comm.rank() == spoiled_rank) LOCKSTEP_RETURN_IF_ERROR(Fill(worker, -0.0, x));
      LOCKSTEP_RETURN_IF_ERROR(replicas.Note(renamed && comm.rank() == 0 ? "other" : "second", x));
      LOCKSTEP_RETURN_IF_ERROR(replicas.Note("third", x));
      return replicas.Compare(comm);
    });
  };
  REQUIRE_OK(run(-1, false));
  CHECK(Says(
      run(1, false),
      "replicas differ after \"second\" (float32 [4, 2], record 2): rank 1 not as ranks 0, 2"));
  CHECK(Says(run(-1, true), "but of another operation on others: ranks 1, 2 not as rank 0"));
}

}  // namespace
}  // namespace lockstep::testing
