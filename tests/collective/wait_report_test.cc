#include "lockstep/collective/cuda/wait_report.h"

#include "lockstep/tests/catch.h"

namespace lockstep::internal::cuda {
namespace {

// What the host reads when a kernel of `call` has waited in vain for `rank`.
WaitedCall Reported(const CollectiveCall& call, std::uint64_t round, int rank) {
  return ReadWaitReport({.call = CallOnDevice(call, round) + static_cast<std::uint64_t>(rank) + 1,
                         .count = call.in_count()});
}

}  // namespace

TEST_CASE("a kernel's report names its call as the host does, and the rank that it waited for") {
  for (const CollectiveKind kind : {CollectiveKind::kAllReduce, CollectiveKind::kBroadcast,
                                    CollectiveKind::kAllToAll, CollectiveKind::kSplit}) {
    for (const DType dtype : kAllDTypes) {
      for (const ReduceOp op : kAllReduceOps) {
        for (const int rank : {0, 7, 63}) {
          for (const std::uint64_t round : {std::uint64_t{1}, (std::uint64_t{1} << 39) - 1}) {
            const CollectiveCall call = {.kind = kind,
                                         .dtype = dtype,
                                         .op = op,
                                         .root = rank,
                                         .in_width = 1 << 20,
                                         .out_width = 1 << 20};
            const WaitedCall waited = Reported(call, round, rank);
            REQUIRE(waited.description == call.Describe(round));
            REQUIRE(waited.awaited_rank == rank);
          }
        }
      }
    }
  }
}

TEST_CASE("a report from a graph says so, and numbers the round in which it was captured") {
  const CollectiveCall call = {
      .kind = CollectiveKind::kAllReduce, .capturing = true, .in_width = 100, .out_width = 100};
  REQUIRE(Reported(call, 7, 2).description == "all_reduce #7 (float32 x 100, sum), in a graph");
}

TEST_CASE("no call looks like no report, and no call spills into the rank") {
  const CollectiveCall call = {.kind = CollectiveKind::kAllReduce};
  REQUIRE(CallOnDevice(call, 0) % 256 == 0);
  REQUIRE(Reported(call, 0, 0).awaited_rank == 0);
  // A round beyond the field wraps around and changes nothing else.
  REQUIRE(Reported(call, (std::uint64_t{1} << 39) + 5, 3).description == call.Describe(5));
}

}  // namespace lockstep::internal::cuda
