// Shapes that must be equal on all ranks: compared beyond their counts, and shown.
#include <set>

#include "lockstep/collective/agreement.h"
#include "lockstep/tests/collective/provoke.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Code = absl::StatusCode;

// A reduce-scatter or all-gather of one rank; an all-reduce looks at `whole` alone.
struct Asked {
  Shape whole;
  Shape part = {};
  int axis = 0;
};

using Call = absl::Status (*)(Communicator&, Guarded& in, Guarded& out, const Asked&);

absl::Status Sum(Communicator& comm, Guarded& in, Guarded& out, const Asked& asked) {
  return comm.AllReduce(in.tensor(asked.whole), out.tensor(asked.whole));
}
absl::Status Send(Communicator& comm, Guarded& in, Guarded& out, const Asked& asked) {
  return comm.Broadcast(in.tensor(asked.whole), out.tensor(asked.whole), 2);
}
absl::Status Scatter(Communicator& comm, Guarded& in, Guarded& out, const Asked& asked) {
  return comm.ReduceScatter(in.tensor(asked.whole), out.tensor(asked.part), ReduceOp::kSum,
                            asked.axis);
}
absl::Status Gather(Communicator& comm, Guarded& in, Guarded& out, const Asked& asked) {
  return comm.AllGather(in.tensor(asked.part), out.tensor(asked.whole), asked.axis);
}

// Ranks 0 and 2 ask for one thing and rank 1 for another: the whole text.
void CheckDiffer(Call call, const Asked& most, const Asked& one, const std::string& text) {
  const Statuses statuses = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    return call(comm, in, out, comm.rank() == 1 ? one : most);
  });
  for (const absl::Status& status : statuses) {
    CHECK(status.code() == Code::kFailedPrecondition);
    CHECK(status.message() == "#1: the ranks differ in " + text);
  }
}

TEST_CASE("equal counts of other shapes are refused, and every rank's shape is shown") {
  const struct {
    Shape most;
    Shape one;
    std::string of_most;
    std::string of_one;
  } cases[] = {
      {{3, 4}, {4, 3}, "[3, 4]", "[4, 3]"},
      {{12}, {3, 4}, "x 12", "[3, 4]"},
      {{3, 4}, {12}, "[3, 4]", "x 12"},
      {{12}, {1, 12}, "x 12", "[1, 12]"},
      {{12, 1}, {1, 12}, "[12, 1]", "[1, 12]"},
      {{2, 3, 2}, {2, 2, 3}, "[2, 3, 2]", "[2, 2, 3]"},
      {{2, 6}, {2, 6, 1}, "[2, 6]", "[2, 6, 1]"},
      {{1, 2, 1, 3, 1, 2}, {1, 2, 1, 3, 2, 1}, "[1, 2, 1, 3, 1, 2]", "[1, 2, 1, 3, 2, 1]"},
      {{0, 4}, {4, 0}, "[0, 4]", "[4, 0]"},
      {{0}, {0, 7}, "x 0", "[0, 7]"},
      {{1}, {}, "x 1", "[]"},
      {{}, {1, 1}, "[]", "[1, 1]"},
      {{3, 4}, {3, 3}, "[3, 4]", "[3, 3]"},
  };
  for (const auto& [most, one, of_most, of_one] : cases) {
    CheckDiffer(Sum, {most}, {one},
                "shape: ranks 0, 2: all_reduce (float32 " + of_most +
                    ", sum); rank 1: all_reduce (float32 " + of_one + ", sum)");
    CheckDiffer(Send, {most}, {one},
                "shape: ranks 0, 2: broadcast (float32 " + of_most +
                    ", root 2); rank 1: broadcast (float32 " + of_one + ", root 2)");
  }
}

TEST_CASE("a reduce_scatter along another axis, or of another input, shows what differs") {
  CheckDiffer(Scatter, {{3, 3}, {1, 3}, 0}, {{3, 3}, {3, 1}, 1},
              "axis: ranks 0, 2: reduce_scatter (float32 [3, 3] -> [1, 3], axis 0, sum); rank 1: "
              "reduce_scatter (float32 [3, 3] -> [3, 1], axis 1, sum)");
  // Nothing but the axis differs.
  CheckDiffer(Scatter, {{3, 3}, {3, 3}, -1}, {{3, 3}, {3, 3}, -2},
              "axis: ranks 0, 2: reduce_scatter (float32 [3, 3], axis 1, sum); rank 1: "
              "reduce_scatter (float32 [3, 3], axis 0, sum)");
  CheckDiffer(Scatter, {{3, 4}, {1, 4}, 0}, {{3, 2, 2}, {1, 2, 2}, 0},
              "input shape: ranks 0, 2: reduce_scatter (float32 [3, 4] -> [1, 4], axis 0, sum); "
              "rank 1: reduce_scatter (float32 [3, 2, 2] -> [1, 2, 2], axis 0, sum)");
  CheckDiffer(Scatter, {{2, 6}, {2, 2}, 1}, {{1, 12}, {1, 4}, 1},
              "input shape: ranks 0, 2: reduce_scatter (float32 [2, 6] -> [2, 2], axis 1, sum); "
              "rank 1: reduce_scatter (float32 [1, 12] -> [1, 4], axis 1, sum)");
  CheckDiffer(Scatter, {{12}, {4}}, {{11}, {4}},
              "input count: ranks 0, 2: reduce_scatter (float32 x 12 -> 4, sum); rank 1: "
              "reduce_scatter (float32 x 11 -> 4, sum)");
}

TEST_CASE("an all_gather along another axis, or into another output, shows what differs") {
  CheckDiffer(Gather, {{3, 3}, {1, 3}, 0}, {{3, 3}, {3, 1}, 1},
              "axis: ranks 0, 2: all_gather (float32 [1, 3] -> [3, 3], axis 0); rank 1: "
              "all_gather (float32 [3, 1] -> [3, 3], axis 1)");
  CheckDiffer(Gather, {{3, 4}, {1, 4}, 0}, {{3, 2, 2}, {1, 2, 2}, 0},
              "output shape: ranks 0, 2: all_gather (float32 [1, 4] -> [3, 4], axis 0); rank 1: "
              "all_gather (float32 [1, 2, 2] -> [3, 2, 2], axis 0)");
  CheckDiffer(Gather, {{12}, {4}}, {{11}, {4}},
              "output count: ranks 0, 2: all_gather (float32 x 4 -> 12); rank 1: all_gather "
              "(float32 x 4 -> 11)");
}

TEST_CASE("parts that differ along the axis alone fit together, in rows of any number of axes") {
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    const std::int64_t mine = worker.rank();  // 0 + 1 + 2 rows
    for (const int axis : {0, 1, 4, -1, -5}) {
      Shape whole = {2, 1, 1, 1, 2};
      Shape part = whole;
      const auto at = static_cast<std::size_t>(axis < 0 ? axis + 5 : axis);
      whole[at] = 3;
      part[at] = mine;
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor in, worker.Zeros(whole, DType::kFloat64));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor out, worker.Zeros(part, DType::kFloat64));
      LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(in, out, ReduceOp::kSum, axis));
      LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(out, in, axis));
    }
    return absl::OkStatus();
  }));
}

TEST_CASE("an all_to_all sees its tensors flat, whatever their shapes") {
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    Guarded in(DType::kInt64, 12);
    Guarded out(DType::kInt64, 12);
    for (int i = 0; i < 12; ++i) in.Set(i, 100 * worker.rank() + i);
    const Shape shapes[] = {{3, 4}, {12}, {2, 3, 2}};
    const auto rank = static_cast<std::size_t>(worker.rank());
    LOCKSTEP_RETURN_IF_ERROR(
        comm.AllToAll(in.tensor(shapes[rank]), out.tensor(shapes[(rank + 1) % 3])));
    for (int i = 0; i < 12; ++i) {
      if (out.Get(i) != 100 * (i / 4) + 4 * worker.rank() + i % 4) {
        return absl::InternalError(absl::StrCat("element ", i, " is ", out.Get(i)));
      }
    }
    return absl::OkStatus();
  }));
}

TEST_CASE("an all_to_all with counts is shown flat like any other") {
  const std::int64_t one = 1;
  const CallDetails details{.send_counts = &one};
  const CollectiveCall call{.kind = CollectiveKind::kAllToAll,
                            .in_width = 1,
                            .out_width = 1,
                            .in = &one,
                            .details = &details};
  CHECK(call.Describe() == "all_to_all (float32 x 1)");
}

TEST_CASE("an all_to_all in place on one rank alone is refused, and shown") {
  std::vector<Guarded> own(kRanks, Guarded(DType::kFloat32, 12));
  const Statuses statuses = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    Guarded& mine = own[comm.rank()];
    return comm.rank() == 1 ? comm.AllToAll(mine.tensor(), mine.tensor())
                            : comm.AllToAll(in.tensor(), out.tensor());
  });
  CheckMismatch(statuses, Code::kFailedPrecondition,
                {"the ranks differ in choice to work in place: ranks 0, 2: all_to_all (float32 x "
                 "12); rank 1: all_to_all (float32 x 12, in place)"});
}

// What two ranks with these calls are told.
absl::Status Agree(const CollectiveCall& first, const CollectiveCall& second) {
  const CollectiveCall* const calls[] = {&first, &second};
  return internal::CheckAgreement(calls);
}

TEST_CASE("ranks of which one captures a graph are told apart, in a barrier too") {
  for (const CollectiveKind kind : {CollectiveKind::kBarrier, CollectiveKind::kAllReduce}) {
    const absl::Status status = Agree({.kind = kind}, {.kind = kind, .capturing = true});
    CHECK(Says(status, "the ranks differ in capture of a graph: rank 0: "));
    CHECK(Says(status, ", being captured"));
  }
}

TEST_CASE("counts are compared whatever the shapes say, and no rank reads what its peer lacks") {
  // As a Communicator in front of another may change a call.
  const std::int64_t shape[] = {2, 6};
  const CallDetails details{.shape = shape, .axis = 1, .part = 3};
  float memory[36];
  CollectiveCall first{.kind = CollectiveKind::kReduceScatter,
                       .outer = 2,
                       .in_width = 6,
                       .out_width = 3,
                       .in = memory,
                       .out = memory + 12,
                       .shape_mix = MixShape(shape, 1),
                       .details = &details};
  CollectiveCall second = first;
  second.out = memory + 24;
  REQUIRE_OK(Agree(first, second));
  second.outer = 1;
  CHECK(Says(Agree(first, second),
             "differ in number of rows before the split axis: rank 0: reduce_scatter (float32 [2, "
             "6] -> [2, 3], axis 1, sum); rank 1: reduce_scatter (float32 x 6 -> 3, sum)"));
  second = first;
  second.in_width = 5;
  second.out_width = 2;
  CHECK(Says(Agree(first, second),
             "differ in input count: rank 0: reduce_scatter (float32 [2, 6] -> [2, 3], axis 1, "
             "sum); rank 1: reduce_scatter (float32 x 10 -> 4, sum)"));
  first.kind = second.kind = CollectiveKind::kAllGather;
  first.in_width = second.in_width = 3;
  first.out_width = 6;
  second.out_width = 5;
  CHECK(Says(Agree(first, second),
             "differ in output count: rank 0: all_gather (float32 [2, 3] -> "
             "[2, 6], axis 1); rank 1: all_gather (float32 x 6 -> 10)"));
}

TEST_CASE("no two small shapes and axes are mixed to one number") {
  std::set<std::uint64_t> seen = {0};
  std::size_t expected = 1;
  const auto add = [&](const Shape& shape) {
    for (int axis = 0; axis < std::max<int>(1, static_cast<int>(shape.size())); ++axis) {
      seen.insert(MixShape(shape, axis));
      ++expected;
    }
  };
  add({});
  for (std::int64_t a = 0; a < 9; ++a) {
    add({a});
    for (std::int64_t b = 0; b < 9; ++b) {
      add({a, b});
      add({a << 20, b << 31});
      for (std::int64_t c = 0; c < 9; ++c) add({a, b, c});
      for (std::int64_t c = 1; c < 9; ++c) add({4096 * a, 1, 128 * b, 77 + c});
    }
  }
  // {0, 0} was added twice, as {a, b} and shifted.
  CHECK(seen.size() == expected - 2);
}

}  // namespace
}  // namespace lockstep
