// Sums and averages have the same bits whatever the floating-point modes of the ranks' threads, and
// leave those modes alone.
#include <algorithm>
#include <random>

#include "lockstep/collective/reduce_tree.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/guarded.h"
#include "lockstep/tests/float_modes.h"
#include "lockstep/tests/ranks.h"

namespace lockstep {
namespace {

using testing::FloatMode;
using testing::Guarded;
using testing::kFloatModes;
using testing::Ranks;

// Numbers around 1, subnormals and, rarely, numbers whose sums overflow.
void FillMixed(Guarded& data, DType dtype, std::int64_t count, int rank) {
  std::mt19937_64 random(static_cast<unsigned>(rank));
  const double tiny = dtype == DType::kFloat64   ? 0x1p-1070
                      : dtype == DType::kFloat16 ? 0x1p-24
                                                 : 0x1p-133;
  const double large = dtype == DType::kFloat64   ? 0x1.FFp1023
                       : dtype == DType::kFloat16 ? 65504
                                                  : 0x1.FEp127;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto number = static_cast<double>(random() % 2000) / 999 - 1;
    if (!IsFloating(dtype)) {
      data.Set(i, number * 0x1.FFp30);
    } else {
      data.Set(i, i % 16 == 5 ? number * large : i % 2 == 0 ? number * tiny * 20 : number);
    }
  }
}

struct Case {
  DType dtype;
  ReduceOp op;
  std::int64_t count;
};

// The inputs of all ranks, made again and reduced in this thread's mode.
std::vector<unsigned char> Reduced(const Case& reduction, int world_size,
                                   const FloatMode* mode = nullptr) {
  std::vector<Guarded> inputs;
  std::vector<const void*> pointers;
  for (int rank = 0; rank < world_size; ++rank) {
    inputs.emplace_back(reduction.dtype, reduction.count);
    FillMixed(inputs.back(), reduction.dtype, reduction.count, rank);
  }
  for (Guarded& input : inputs) pointers.push_back(input.host());
  std::vector<unsigned char> result(inputs[0].size_bytes());
  void* const output = result.data();
  const auto reduce = [&] {
    internal::ReduceTree(reduction.dtype, reduction.op, pointers, {&output, 1}, reduction.count,
                         /*streaming=*/false);
  };
  if (mode == nullptr) {
    reduce();
  } else if (!KeepsMode(*mode, reduce)) {
    result.clear();
  }
  return result;
}

TEST_CASE("every reduction gives the same bits in every floating-point mode, and keeps it") {
  for (const DType dtype : kAllDTypes) {
    for (const ReduceOp op : kAllReduceOps) {
      // A tail, some vectors, and several blocks; in registers, and block by block.
      for (const std::int64_t count : {3, 70, 1100}) {
        for (const int world_size : {2, 3, 9}) {
          const Case reduction{dtype, op, count};
          const auto expected = Reduced(reduction, world_size);
          for (const FloatMode& mode : kFloatModes) {
            INFO(Name(dtype) << " x " << count << ", " << Name(op) << " of " << world_size << ", "
                             << mode.name);
            REQUIRE((Reduced(reduction, world_size, &mode) == expected));
          }
        }
      }
    }
  }
}

// `all`: every rank is in the mode, or rank 1 alone.
absl::Status OneCase(Communicator& comm, const Case& reduction, const FloatMode& mode, bool all,
                     const std::vector<unsigned char>& expected) {
  Guarded data(reduction.dtype, reduction.count);
  FillMixed(data, reduction.dtype, reduction.count, comm.rank());
  const Tensor tensor = data.tensor();
  absl::Status status;
  bool kept = true;
  const auto reduce = [&] { status = comm.AllReduce(tensor, tensor, reduction.op); };
  if (all || comm.rank() == 1) {
    kept = KeepsMode(mode, reduce);
  } else {
    reduce();
  }
  LOCKSTEP_RETURN_IF_ERROR(status);
  const std::string what =
      absl::StrCat(Name(reduction.dtype), " x ", reduction.count, ", ", Name(reduction.op), ", ",
                   mode.name, all ? " on all ranks" : " on rank 1");
  if (!kept) return absl::InternalError(what + ": the thread's mode is not as it was");
  if (std::memcmp(data.host(), expected.data(), expected.size()) == 0) return absl::OkStatus();
  return absl::InternalError(what + ": other bits than in the default mode");
}

TEST_CASE("a rank's floating-point mode changes no bit of a sum, on one rank or on all") {
  for (const int world_size : {2, 9}) {
    const Case cases[] = {{DType::kFloat32, ReduceOp::kSum, 16},
                          {DType::kFloat32, ReduceOp::kSum, 1024},
                          {DType::kFloat64, ReduceOp::kAverage, 1024},
                          // Written past the cache.
                          {DType::kFloat32, ReduceOp::kAverage, 840'000 / world_size}};
    auto ranks = Ranks::Create(world_size);
    REQUIRE_OK(ranks);
    for (const Case& reduction : cases) {
      const std::vector<unsigned char> expected = Reduced(reduction, world_size);
      INFO(world_size << " ranks");
      REQUIRE_OK(ranks->Run([&](Worker&, Communicator& comm) -> absl::Status {
        for (const FloatMode& mode : kFloatModes) {
          for (const bool all : {false, true}) {
            LOCKSTEP_RETURN_IF_ERROR(OneCase(comm, reduction, mode, all, expected));
          }
        }
        return absl::OkStatus();
      }));
    }
  }
}

TEST_CASE("reduce_scatter and the other collectives keep every floating-point mode") {
  auto ranks = Ranks::Create(2);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker&, Communicator& comm) -> absl::Status {
    for (const FloatMode& mode : kFloatModes) {
      // Subnormals whose average is subnormal.
      std::vector<float> whole(6, comm.rank() == 0 ? 0x1p-140f : 0x1.8p-139f);
      std::vector<float> part(3, 0);
      absl::Status status;
      const bool kept = KeepsMode(mode, [&] {
        const Tensor in = Tensor::View(whole.data(), {6}, DType::kFloat32);
        const Tensor out = Tensor::View(part.data(), {3}, DType::kFloat32);
        status = comm.ReduceScatter(in, out, ReduceOp::kAverage);
        status.Update(comm.AllGather(out, in));
        status.Update(comm.Broadcast(in, in, 0));
        status.Update(comm.AllToAll(in, in));
        status.Update(comm.Barrier());
      });
      LOCKSTEP_RETURN_IF_ERROR(status);
      if (!kept) return absl::InternalError(absl::StrCat(mode.name, " is not as it was"));
      for (const float value : whole) {
        if (value != 0x1p-139f)
          return absl::InternalError(absl::StrCat("in mode ", mode.name, ", got ", value));
      }
    }
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace lockstep
