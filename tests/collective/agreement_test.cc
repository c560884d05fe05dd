// Ranks that ask for different or impossible things: an error on every rank before a byte has
// moved.
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "lockstep/collective/agreement.h"
#include "lockstep/tests/collective/provoke.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

TEST_CASE("F7: a wrong count on one rank is an error on all, with every rank's count", "[fault]") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    const std::int64_t count = comm.rank() == 1 ? 11 : 12;
    return comm.AllReduce(First(in, count), First(out, count));
  });
  CheckMismatch(statuses, absl::StatusCode::kFailedPrecondition,
                {"#1", "differ in count", "ranks 0, 2: all_reduce (float32 x 12, sum)",
                 "rank 1: all_reduce (float32 x 11, sum)"});
}

TEST_CASE("F8: a wrong element type is named", "[fault]") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    const DType dtype = comm.rank() == 2 ? DType::kInt32 : DType::kFloat32;
    return comm.AllReduce(First(in, 12, dtype), First(out, 12, dtype));
  });
  CheckMismatch(statuses, absl::StatusCode::kFailedPrecondition,
                {"differ in element type", "rank 2: all_reduce (int32 x 12, sum)"});
}

TEST_CASE("F9: a wrong reduction is named", "[fault]") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.AllReduce(First(in, 12), First(out, 12),
                          comm.rank() == 0 ? ReduceOp::kMax : ReduceOp::kSum);
  });
  CheckMismatch(statuses, absl::StatusCode::kFailedPrecondition,
                {"differ in reduction", "rank 0: all_reduce (float32 x 12, max)"});
}

TEST_CASE("F10: a wrong root is named", "[fault]") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.Broadcast(First(in, 12), First(out, 12), comm.rank() == 2 ? 1 : 0);
  });
  CheckMismatch(statuses, absl::StatusCode::kFailedPrecondition,
                {"differ in root", "root 0", "rank 2: broadcast (float32 x 12, root 1)"});
}

TEST_CASE("F11: different operations in one round are listed rank by rank", "[fault]") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    if (comm.rank() == 0) return comm.Barrier();
    return comm.rank() == 1 ? comm.AllReduce(First(in, 12), First(out, 12))
                            : comm.Broadcast(First(in, 12), First(out, 12), 0);
  });
  CheckMismatch(
      statuses, absl::StatusCode::kFailedPrecondition,
      {"differ in operation", "rank 0: barrier", "rank 1: all_reduce", "rank 2: broadcast"});
}

TEST_CASE("F19: parts that do not make up the whole are an error on all ranks, with one text",
          "[fault]") {
  const Statuses scatter = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.ReduceScatter(First(in, 10), First(out, 10 / kRanks));
  });
  CheckMismatch(scatter, absl::StatusCode::kFailedPrecondition,
                {"3 ranks add up to 1 x 9", "the whole is 1 x 10"});
  const Statuses gather = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.AllGather(First(in, comm.rank() == 0 ? 3 : 4), First(out, 12));
  });
  CheckMismatch(gather, absl::StatusCode::kFailedPrecondition,
                {"add up to 1 x 11", "rank 0: all_gather (float32 x 3 -> 12)"});
}

TEST_CASE("what one rank sends and another expects must be equal") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
    const std::int64_t even[] = {4, 4, 4};
    const std::int64_t odd[] = {4, 5, 3};
    return comm.AllToAll(in.tensor(), out.tensor(), comm.rank() == 2 ? odd : even, even);
  });
  CheckMismatch(statuses, absl::StatusCode::kFailedPrecondition,
                {"rank 2 sends 5 elements to rank 1, which expects 4"});
}

TEST_CASE("F17: one output given by two ranks is refused, naming both", "[fault]") {
  Guarded shared(DType::kFloat32, 12);
  const Statuses statuses = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.AllReduce(in.tensor(), comm.rank() == 0 ? out.tensor() : shared.tensor());
  });
  CheckMismatch(statuses, absl::StatusCode::kInvalidArgument,
                {"the output of rank 1 overlaps the output of rank 2"});
}

TEST_CASE("an output inside another rank's input is refused, naming both") {
  Guarded shared(DType::kFloat32, 12);
  const Statuses statuses = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.AllReduce(comm.rank() == 0 ? shared.tensor() : in.tensor(),
                          comm.rank() == 2 ? shared.tensor() : out.tensor());
  });
  CheckMismatch(statuses, absl::StatusCode::kInvalidArgument,
                {"the output of rank 2 overlaps the input of rank 0"});
}

TEST_CASE(
    "an overlap of two ranks' memory is found wherever it lies, and none where there is none") {
  struct Placed {
    int in;
    int out;
    int count;
  };
  const auto overlap = [](int a, int b, int count) { return a < b + count && b < a + count; };
  std::minstd_rand random(5);
  const auto below = [&](int end) {
    return static_cast<int>(random() % static_cast<unsigned>(end));
  };
  std::vector<float> arena(4000);
  int refused = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    // Few ranks, or more than are looked at as whole spans.
    const int ranks = trial % 50 == 0 ? 65 + below(3) : 2 + below(5);
    const int count = below(4);
    const int width = ranks * 12;
    std::vector<Placed> placed;
    std::vector<CollectiveCall> calls;
    for (int rank = 0; rank < ranks; ++rank) {
      // Of its own at first, in any order; then one is moved anywhere.
      const int home = 12 * ((rank * 5 + trial) % ranks);
      Placed mine = {home, below(2) == 0 ? home : home + 6, count};
      if (rank == trial % ranks && below(2) == 0)
        (below(2) == 0 ? mine.in : mine.out) = below(width);
      placed.push_back(mine);
      calls.push_back({.kind = CollectiveKind::kAllReduce,
                       .in_width = count,
                       .out_width = count,
                       .in = arena.data() + mine.in,
                       .out = arena.data() + mine.out});
    }
    bool wrong = false;
    for (int a = 0; a < ranks; ++a) {
      for (int b = 0; b < ranks; ++b) {
        wrong = wrong || (a != b && count > 0 &&
                          (overlap(placed[a].out, placed[b].out, count) ||
                           overlap(placed[a].out, placed[b].in, count)));
      }
    }
    std::vector<const CollectiveCall*> pointers;
    for (const CollectiveCall& call : calls) pointers.push_back(&call);
    REQUIRE(internal::CheckAgreement(pointers).ok() == !wrong);
    refused += wrong ? 1 : 0;
  }
  CHECK(refused > 1000);
  CHECK(refused < 19000);
}

TEST_CASE("memory of no elements overlaps nothing, wherever it points") {
  std::vector<float> arena(20);
  // The ranks' memory interleaves, and rank 1 has no elements amid rank 0's output: an empty part,
  // or the input of a broadcast that nobody reads.
  for (const CollectiveKind kind : {CollectiveKind::kAllGather, CollectiveKind::kBroadcast}) {
    const CollectiveCall first = {
        .kind = kind, .in_width = 4, .out_width = 4, .in = arena.data(), .out = arena.data() + 16};
    CollectiveCall second = first;
    if (kind == CollectiveKind::kAllGather) second.in_width = 0;
    second.in = arena.data() + 17;
    second.out = arena.data() + 8;
    const CollectiveCall* const calls[] = {&first, &second};
    REQUIRE_OK(internal::CheckAgreement(calls));
  }
}

TEST_CASE("ranks may share an input") {
  Guarded shared(DType::kFloat32, 12);
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([&](Worker&, Communicator& comm) {
    Guarded out(DType::kFloat32, 12);
    return comm.AllReduce(shared.tensor(), out.tensor());
  }));
}

// Rank 1 all-reduces what `make` gives it, the others valid tensors.
void CheckRefusedTensors(const std::function<std::pair<Tensor, Tensor>(Guarded&, Guarded&)>& make,
                         const char* part) {
  CheckRefused(Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
                 if (comm.rank() != 1) return comm.AllReduce(in.tensor(), out.tensor());
                 const auto [bad_in, bad_out] = make(in, out);
                 return comm.AllReduce(bad_in, bad_out);
               }),
               part);
}

TEST_CASE(
    "F13, F15, F16: tensors that cannot be are refused on their rank, and the others hear why",
    "[fault]") {
  const auto at = [](Guarded& data, std::int64_t bytes, std::int64_t count) {
    return Tensor::View(static_cast<char*>(data.data()) + bytes, {count}, DType::kFloat32);
  };
  CheckRefusedTensors(
      [](Guarded&, Guarded& out) {
        return std::pair(Tensor::View(nullptr, {12}, DType::kFloat32), out.tensor());
      },
      "in, float32 [12] on cpu, has a null pointer");
  CheckRefusedTensors(
      [](Guarded& in, Guarded&) {
        return std::pair(in.tensor(), Tensor::View(nullptr, {12}, DType::kFloat32));
      },
      "out, float32 [12] on cpu, has a null pointer");
  CheckRefusedTensors(
      [&](Guarded& in, Guarded& out) { return std::pair(at(in, 2, 11), at(out, 0, 11)); },
      "is misaligned");
  CheckRefusedTensors([&](Guarded& in, Guarded&) { return std::pair(at(in, 0, 8), at(in, 4, 8)); },
                      "overlap partly");
  CheckRefusedTensors(
      [&](Guarded& in, Guarded& out) { return std::pair(at(in, 0, 8), at(out, 0, 9)); },
      "they must have one shape");
  CheckRefusedTensors(
      [](Guarded& in, Guarded& out) {
        return std::pair(in.tensor(), Tensor::View(out.data(), {12}, DType::kInt32));
      },
      "they must have one element type");
  CheckRefusedTensors(
      [](Guarded& in, Guarded& out) {
        return std::pair(*Tensor::View(in.data(), {4, 3}, DType::kFloat32).Slice(1, 0, 2),
                         Tensor::View(out.data(), {4, 2}, DType::kFloat32));
      },
      "is strided");
  CheckRefusedTensors(
      [](Guarded& in, Guarded& out) {
        constexpr std::int64_t kHuge = std::int64_t{1} << 61;
        return std::pair(Tensor::View(in.data(), {kHuge, 4}, DType::kFloat32),
                         Tensor::View(out.data(), {kHuge, 4}, DType::kFloat32));
      },
      "more bytes than 2^63 - 1");
  CheckRefusedTensors(
      [](Guarded& in, Guarded& out) {
        return std::pair(Tensor::View(in.data(), {12}, DType::kFloat32, Device::Cuda(0)),
                         out.tensor());
      },
      "on another device");
}

TEST_CASE("a root, an axis and counts that do not exist are refused") {
  CheckRefused(Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
                 return comm.Broadcast(in.tensor(), out.tensor(), comm.rank() == 1 ? 3 : 0);
               }),
               "root 3 in a group of 3");
  CheckRefused(Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
                 return comm.AllGather(First(in, 4), First(out, 12), comm.rank() == 1 ? 1 : 0);
               }),
               "axis 1 of float32 [4] on cpu");
  CheckRefused(Provoke([](Communicator& comm, Guarded& in, Guarded& out) {
                 const std::int64_t negative[] = {-1, 12, 1};
                 const std::int64_t even[] = {4, 4, 4};
                 return comm.AllToAll(in.tensor(), out.tensor(), comm.rank() == 1 ? negative : even,
                                      even);
               }),
               "send_counts must be at least 0 and add up to the 12 elements");
}

TEST_CASE("an input that overlaps the wrong part of the whole is refused on all ranks") {
  const Statuses statuses = Provoke([](Communicator& comm, Guarded& in, Guarded&) {
    const int part = comm.rank() == 1 ? 0 : comm.rank();
    return comm.AllGather(*in.tensor().Slice(0, 4 * part, 4), in.tensor());
  });
  CheckMismatch(statuses, absl::StatusCode::kInvalidArgument,
                {"input and output of rank 1 overlap", "begins at element 4"});
}

TEST_CASE("F14: null pointers are fine where there are no elements", "[fault]") {
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  const Tensor none = Tensor::View(nullptr, {0}, DType::kFloat16);
  REQUIRE_OK(ranks->Run([&](Worker&, Communicator& comm) -> absl::Status {
    for (const ReduceOp op : kAllReduceOps)
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(none, none, op));
    LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(none, none));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(none, none));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(none, none));
    return comm.Broadcast(none, none, 2);
  }));
}

}  // namespace
}  // namespace lockstep
