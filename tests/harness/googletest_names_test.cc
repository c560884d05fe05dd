// The harness beside GoogleTest, whose namespace has the same name as the harness's own: the form
// that its page and the headers show compiles there and runs. What stands here for GoogleTest
// comes first, and `using namespace lockstep` before any header.
namespace testing {

class Test {
 public:
  virtual ~Test() = default;
  virtual void TestBody() = 0;
};
namespace internal {}

}  // namespace testing

namespace lockstep {}
using namespace lockstep;

#include "lockstep/layers/linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/gradient_check.h"
#include "lockstep/tests/harness/replica_check.h"
#include "lockstep/tests/harness/run_ranks.h"

namespace {

absl::Status RowEqualsWhole(Worker& worker, Communicator& comm) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto whole, Linear::Create(worker, {.in_features = 6, .out_features = 5, .seed = 1}));
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto row, RowParallelLinear::Create(
                    worker, comm,
                    {.in_features = 6, .out_features = 5, .input_is_parallel = false, .seed = 1}));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, worker.Empty({2, 6}, DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 0.5, x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected, whole.Forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, row.Forward(x));
  lockstep::testing::ReplicaCheck replicas(worker);
  LOCKSTEP_RETURN_IF_ERROR(replicas.Note("row.Forward", y));
  LOCKSTEP_RETURN_IF_ERROR(replicas.Compare(comm));
  return lockstep::testing::ExpectClose(worker, "y", y, expected, /*ulps=*/8);
}

// As GoogleTest's TEST makes it.
class RowTest : public ::testing::Test {
 public:
  void TestBody() override {
    status = lockstep::testing::RunRanks({.world_size = 2}, [](Worker& worker, Communicator& comm) {
      return RowEqualsWhole(worker, comm);
    });
  }
  absl::Status status = absl::UnknownError("not run");
};

TEST_CASE("the harness works beside a namespace testing, with all of lockstep in scope") {
  RowTest test;
  test.TestBody();
  REQUIRE_OK(test.status);
  REQUIRE_OK(lockstep::testing::RunInChild(
      absl::Seconds(200), [] { return lockstep::testing::Expect(true, "never"); }));
}

}  // namespace
