#include "lockstep/collective/cuda/wait_report.h"

#include "lockstep/tests/catch.h"

namespace lockstep::internal::cuda {

TEST_CASE("what a kernel says of its call is what the host says of it") {
  for (const CollectiveKind kind :
       {CollectiveKind::kAllReduce, CollectiveKind::kReduceScatter, CollectiveKind::kAllGather,
        CollectiveKind::kBroadcast, CollectiveKind::kAllToAll}) {
    for (const DType dtype : kAllDTypes) {
      for (const ReduceOp op : kAllReduceOps) {
        const CollectiveCall call = {.kind = kind,
                                     .dtype = dtype,
                                     .op = op,
                                     .root = 3,
                                     .outer = 5,
                                     .in_width = std::int64_t{1} << 40,
                                     .out_width = 7};
        REQUIRE(Describe(ToWaitingCall(call, 42)) == call.Describe(42));
      }
    }
  }
}

TEST_CASE("what a kernel of a graph says of its call tells that it was captured, and as which") {
  const CollectiveCall call = {
      .kind = CollectiveKind::kAllReduce, .capturing = true, .in_width = 100, .out_width = 100};
  REQUIRE(Describe(ToWaitingCall(call, 7)) == "all_reduce (float32 x 100, sum), captured as #7");
}

}  // namespace lockstep::internal::cuda
