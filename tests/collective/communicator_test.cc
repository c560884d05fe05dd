// What can be wrong with one rank's own arguments, case by case: refused there, and told to the
// others.
#include <cmath>
#include <cstdint>
#include <limits>

#include "lockstep/tests/collective/provoke.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

using Code = absl::StatusCode;

// Rank 1 does `wrong` and the others sum up.
template <typename Wrong>
void CheckRank1(Wrong wrong, const char* part) {
  CheckRefused(Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
                 return comm.rank() == 1 ? wrong(comm, in, out)
                                         : comm.AllReduce(in.tensor(), out.tensor());
               }),
               part);
}

TEST_CASE("an axis that a tensor does not have is refused as it was asked for") {
  for (const int axis : {2, -3, 99, std::numeric_limits<int>::min()}) {
    const std::string asked = absl::StrCat("axis ", axis, " of float32 [3, 2]");
    CheckRank1(
        [axis](Communicator& comm, Guarded& in, Guarded& out) {
          return comm.ReduceScatter(in.tensor({3, 2}), out.tensor({1, 2}), ReduceOp::kSum, axis);
        },
        ("reduce_scatter: " + asked + " on cpu; it must be from -2 to 1").c_str());
    CheckRank1(
        [axis](Communicator& comm, Guarded& in, Guarded& out) {
          return comm.AllGather(in.tensor({3, 2}), out.tensor({9, 2}), axis);
        },
        ("all_gather: " + asked + " on cpu; it must be from -2 to 1").c_str());
  }
  CheckRank1([](Communicator& comm, Guarded& in,
                Guarded& out) { return comm.AllGather(in.tensor(Shape{}), out.tensor({3})); },
             "all_gather: axis 0 of float32 [] on cpu; it has none");
}

TEST_CASE("shapes that differ beside the axis, or in their number of axes, are refused") {
  const auto scatter = [](Shape in_shape, Shape out_shape, int axis, const char* part) {
    CheckRank1(
        [&](Communicator& comm, Guarded& in, Guarded& out) {
          return comm.ReduceScatter(in.tensor(in_shape), out.tensor(out_shape), ReduceOp::kSum,
                                    axis);
        },
        part);
    CheckRank1(
        [&](Communicator& comm, Guarded& in, Guarded& out) {
          return comm.AllGather(in.tensor(out_shape), out.tensor(in_shape), axis);
        },
        part);
  };
  scatter({3, 2}, {1, 1}, 0, "they may differ along axis 0 alone");
  scatter({3, 2}, {1, 1}, 1, "they may differ along axis 1 alone");
  scatter({3, 2, 2}, {3, 1, 1}, -2, "they may differ along axis 1 alone");
  scatter({3, 2}, {1, 2, 1}, 0, "they may differ along axis 0 alone");
  scatter({3, 2, 1}, {1, 2}, 0, "they may differ along axis 0 alone");
  const char* one = "they must have one shape";
  for (const auto& [a, b] : {std::pair<Shape, Shape>{{3, 4}, {4, 3}}, {{12}, {3, 4}}}) {
    CheckRank1([&](Communicator& comm, Guarded& in,
                   Guarded& out) { return comm.AllReduce(in.tensor(a), out.tensor(b)); },
               one);
    CheckRank1([&](Communicator& comm, Guarded& in,
                   Guarded& out) { return comm.Broadcast(in.tensor(a), out.tensor(b), 0); },
               one);
  }
}

TEST_CASE("a root below the first rank or above the last is refused") {
  for (const int root : {-1, 3, std::numeric_limits<int>::max()}) {
    const std::string part =
        absl::StrCat("broadcast: root ", root, " in a group of 3; it must be from 0 to 2");
    CheckRank1([root](Communicator& comm, Guarded& in,
                      Guarded& out) { return comm.Broadcast(in.tensor(), out.tensor(), root); },
               part.c_str());
  }
}

TEST_CASE("what is wrong with the output is found as well as with the input") {
  const auto sum = [](auto make, const char* part) {
    CheckRank1(
        [&](Communicator& comm, Guarded& in, Guarded& out) {
          const auto [bad_in, bad_out] = make(in, out);
          return comm.AllReduce(bad_in, bad_out);
        },
        part);
  };
  const auto floats = [](void* data, Shape shape, Device device = Device::Cpu()) {
    return Tensor::View(data, std::move(shape), DType::kFloat32, device);
  };
  const auto later = [](Guarded& data) { return static_cast<char*>(data.data()) + 1; };
  sum([&](Guarded& in, Guarded& out) { return std::pair(First(in, 8), floats(later(out), {8})); },
      "out, float32 [8] on cpu, is misaligned; its address must be a multiple of 4");
  sum(
      [&](Guarded& in, Guarded& out) {
        return std::pair(First(in, 8), floats(out.data(), {8}, Device::Cuda(0)));
      },
      "out, float32 [8] on cuda:0, is on another device than this rank; it must be on cpu");
  sum(
      [&](Guarded& in, Guarded& out) {
        return std::pair(floats(in.data(), {4, 2}), *floats(out.data(), {4, 3}).Slice(1, 0, 2));
      },
      "out, float32 [4, 2] on cpu, is strided");
  sum(
      [&](Guarded& in, Guarded& out) {
        return std::pair(Tensor::View(in.data(), {8}, DType::kInt32), First(out, 8));
      },
      "in is int32 [8] on cpu and out is float32 [8] on cpu; they must have one element type");
  // The output begins before the input and ends in it.
  sum(
      [&](Guarded& in, Guarded&) {
        return std::pair(floats(static_cast<char*>(in.data()) + 4, {8}), First(in, 8));
      },
      "overlap partly");
}

// An all-to-all of twelve elements with these counts on rank 1.
void CheckCounts(std::vector<std::int64_t> send, std::vector<std::int64_t> receive,
                 const char* part) {
  CheckRank1([&](Communicator& comm, Guarded& in,
                 Guarded& out) { return comm.AllToAll(in.tensor(), out.tensor(), send, receive); },
             part);
}

TEST_CASE("counts that do not fit their tensor or the group are refused, to send and to receive") {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  const std::vector<std::int64_t> right = {4, 4, 4};
  const std::vector<std::vector<std::int64_t>> wrong = {
      {4, 4, 5}, {4, 4, 3}, {-1, 12, 1}, {12, 4, -4}, {kMax, kMax, 14}, {kMax, 1, 12}};
  for (const auto& counts : wrong) {
    CheckCounts(counts, right, "all_to_all: send_counts must be at least 0 and add up to the 12");
    CheckCounts(right, counts, "all_to_all: receive_counts must be at least 0 and add up to the");
    CheckCounts({}, counts, "all_to_all: receive_counts must be at least 0 and add up to the 12");
  }
  CheckCounts({6, 6}, right, "all_to_all: 2 send_counts for 3 ranks; one per rank is needed");
  CheckCounts(right, {3, 3, 3, 3}, "all_to_all: 4 receive_counts for 3 ranks");
  CheckRank1([](Communicator& comm, Guarded& in,
                Guarded& out) { return comm.AllToAll(First(in, 11), out.tensor()); },
             "all_to_all: 11 elements do not divide into 3 equal parts; give send_counts");
  CheckRank1([](Communicator& comm, Guarded& in,
                Guarded& out) { return comm.AllToAll(in.tensor(), First(out, 10)); },
             "all_to_all: 10 elements do not divide into 3 equal parts; give receive_counts");
}

TEST_CASE("counts cannot be given in place, of either side, but either side alone may have them") {
  std::vector<Guarded> own(kRanks, Guarded(DType::kFloat32, 12));
  const std::vector<std::int64_t> even = {4, 4, 4};
  const std::vector<std::int64_t> none;
  for (const bool sends : {true, false}) {
    CheckRank1(
        [&](Communicator& comm, Guarded& in, Guarded&) {
          return comm.AllToAll(in.tensor(), in.tensor(), sends ? even : none, sends ? none : even);
        },
        "in and out are one tensor, and counts are given");
  }
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    Guarded& in = own[worker.rank()];
    Guarded out(DType::kFloat32, 12);
    for (int i = 0; i < 12; ++i) in.Set(i, 100 * worker.rank() + i);
    for (const bool sends : {true, false}) {
      LOCKSTEP_RETURN_IF_ERROR(out.Spoil());
      LOCKSTEP_RETURN_IF_ERROR(
          comm.AllToAll(in.tensor(), out.tensor(), sends ? even : none, sends ? none : even));
      for (int i = 0; i < 12; ++i) {
        if (out.Get(i) != 100 * (i / 4) + 4 * worker.rank() + i % 4)
          return absl::InternalError(absl::StrCat("element ", i, " is ", out.Get(i)));
      }
    }
    return absl::OkStatus();
  }));
}

TEST_CASE("each rank's expectation is compared, those of equal parts with counts too") {
  const std::vector<std::int64_t> odd = {4, 5, 3};
  const Statuses receives = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    return comm.rank() == 2 ? comm.AllToAll(in.tensor(), out.tensor(), {}, odd)
                            : comm.AllToAll(in.tensor(), out.tensor());
  });
  CheckMismatch(receives, Code::kFailedPrecondition,
                {"all_to_all: rank 1 sends 4 elements to rank 2, which expects 5"});
  const Statuses shorter = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    const std::int64_t count = comm.rank() == 0 ? 9 : 12;
    return comm.AllToAll(First(in, count), First(out, count));
  });
  CheckMismatch(shorter, Code::kFailedPrecondition,
                {"all_to_all: rank 0 sends 3 elements to rank 1, which expects 4"});
}

TEST_CASE("parts in place are a rank's own part of an undivided first axis, or refused") {
  const auto whole = [](Guarded& data) { return data.tensor({2, 6}); };
  const auto at = [](Guarded& data, std::int64_t element, Shape shape) {
    return Tensor::View(static_cast<float*>(data.data()) + element, std::move(shape),
                        DType::kFloat32);
  };
  // Each rank's part begins where its own would, but its rows lie apart.
  for (const bool scatters : {true, false}) {
    const Statuses statuses = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
      const Tensor part = comm.rank() == 1 ? at(in, 2, {2, 2}) : at(out, 0, {2, 2});
      return scatters ? comm.ReduceScatter(whole(in), part, ReduceOp::kSum, 1)
                      : comm.AllGather(part, whole(in), 1);
    });
    CheckMismatch(statuses, Code::kInvalidArgument,
                  {"input and output of rank 1 overlap", scatters ? "the output" : "the input",
                   "begins at element 2 of an undivided first axis"});
  }
  const Statuses other = Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
    const Tensor part = comm.rank() == 2 ? at(in, 4, {4}) : at(out, 0, {4});
    return comm.ReduceScatter(in.tensor(), part);
  });
  CheckMismatch(other, Code::kInvalidArgument,
                {"rank 2 overlap, but the output is not this rank's own part, which begins at "
                 "element 8"});
}

TEST_CASE("of a broadcast's inputs the root's alone is read, so only that may not be overwritten") {
  Guarded own(DType::kFloat32, 12);
  // Rank 0's output is rank 2's input.
  const auto broadcast = [&](Communicator& comm, Guarded& in, Guarded& out, int root) {
    return comm.Broadcast(comm.rank() == 2 ? own.tensor() : in.tensor(),
                          comm.rank() == 0 ? own.tensor() : out.tensor(), root);
  };
  CheckMismatch(Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
                  return broadcast(comm, in, out, 2);
                }),
                Code::kInvalidArgument, {"the output of rank 0 overlaps the input of rank 2"});
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  std::vector<Guarded> ins(kRanks, Guarded(DType::kFloat32, 12));
  std::vector<Guarded> outs = ins;
  for (int i = 0; i < 12; ++i) ins[1].Set(i, 7 + i);
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) {
    const auto rank = static_cast<std::size_t>(worker.rank());
    return broadcast(comm, ins[rank], outs[rank], 1);
  }));
  for (int i = 0; i < 12; ++i) CHECK((own.Get(i) == 7 + i && outs[2].Get(i) == 7 + i));
}

TEST_CASE("outputs that touch without overlapping are fine, and one element in common is not") {
  Guarded shared(DType::kFloat32, 36);
  const auto part = [&](std::int64_t begin, std::int64_t count) {
    return *shared.tensor().Slice(0, begin, count);
  };
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) {
    const Tensor mine = part(12 * worker.rank(), 12);
    return comm.AllReduce(mine, mine);
  }));
  CheckMismatch(Provoke([&](Communicator& comm, Guarded& in, Guarded& out) {
                  if (comm.rank() == 2) return comm.AllReduce(First(in, 8), First(out, 8));
                  return comm.AllReduce(First(in, 8), part(comm.rank() * 7, 8));
                }),
                Code::kInvalidArgument, {"the output of rank 0 overlaps the output of rank 1"});
}

TEST_CASE("reduce_scatter and all_gather take axes from the end") {
  for (const int axis : {-1, -2, 0, 1}) {
    auto ranks = Ranks::Create(kRanks);
    REQUIRE_OK(ranks);
    REQUIRE_OK(ranks->Run([axis](Worker& worker, Communicator& comm) -> absl::Status {
      const bool last = axis == -1 || axis == 1;
      Guarded whole(DType::kFloat32, 9);
      Guarded part(DType::kFloat32, 3);
      for (int i = 0; i < 9; ++i) whole.Set(i, i);
      const Shape shape = last ? Shape{3, 1} : Shape{1, 3};
      LOCKSTEP_RETURN_IF_ERROR(
          comm.ReduceScatter(whole.tensor({3, 3}), part.tensor(shape), ReduceOp::kSum, axis));
      for (int i = 0; i < 3; ++i) {
        const int at = last ? 3 * i + worker.rank() : 3 * worker.rank() + i;
        if (part.Get(i) != 3 * at) return absl::InternalError("another part was reduced");
      }
      LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part.tensor(shape), whole.tensor({3, 3}), axis));
      for (int i = 0; i < 9; ++i) {
        if (whole.Get(i) != 3 * i) return absl::InternalError("gathered in another order");
      }
      return absl::OkStatus();
    }));
  }
}

TEST_CASE("the NaN check is for the inputs of floating-point reductions, of every kind and type") {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    auto ranks = Ranks::Create(kRanks, {.check_nan = true});
    REQUIRE_OK(ranks);
    std::vector<Guarded> ins(kRanks, Guarded(dtype, 9));
    std::vector<Guarded> outs(kRanks, Guarded(dtype, 3));
    ins[2].Set(7, std::numeric_limits<double>::quiet_NaN());
    for (const ReduceOp op : kAllReduceOps) {
      const auto told = ranks->RunEach([&](Worker& worker, Communicator& comm) {
        const auto rank = static_cast<std::size_t>(worker.rank());
        return comm.ReduceScatter(ins[rank].tensor({3, 3}), outs[rank].tensor({1, 3}), op);
      });
      for (const absl::Status& status : told) {
        CHECK(status.code() == Code::kInvalidArgument);
        CHECK(
            Says(status, absl::StrCat("(", std::string(Name(dtype)), " [3, 3] -> [1, 3], axis ")));
        CHECK(Says(status, "the input of rank 2 has a NaN at index 7; nothing was moved"));
      }
      CHECK(ranks->barrier->status().ok());
    }
    // What is only moved may be NaN.
    REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      const auto rank = static_cast<std::size_t>(worker.rank());
      LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(ins[rank].tensor(), ins[rank].tensor()));
      return comm.Broadcast(ins[rank].tensor(), ins[rank].tensor(), 2);
    }));
    CHECK(std::isnan(ins[0].Get(7)));
  }
}

}  // namespace
}  // namespace lockstep
