// The numeric contract: the same bits on every rank, every run, every size and every split of the
// work.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/guarded.h"
#include "lockstep/tests/ranks.h"

namespace lockstep {
namespace {

using testing::Guarded;
using testing::Ranks;
using testing::Says;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The contract, word for word: the left side takes the largest power of two below the count.
float TreeSum(const std::vector<float>& values, std::size_t begin, std::size_t count) {
  if (count == 1) return values[begin];
  const std::size_t left = std::bit_floor(count - 1);
  return TreeSum(values, begin, left) + TreeSum(values, begin + left, count - left);
}

Tensor ViewOf(std::vector<float>& values) {
  return Tensor::View(values.data(), {static_cast<std::int64_t>(values.size())}, DType::kFloat32);
}

// All ranks' results of summing inputs[rank], by rank.
std::vector<std::vector<float>> AllReduced(Ranks& ranks,
                                           const std::vector<std::vector<float>>& inputs,
                                           ReduceOp op) {
  std::vector<std::vector<float>> results = inputs;
  REQUIRE_OK(ranks.Run([&](Worker& worker, Communicator& comm) {
    auto& mine = results[worker.rank()];
    return comm.AllReduce(ViewOf(mine), ViewOf(mine), op);
  }));
  return results;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("cancelling inputs are summed in the tree's order, in every permutation") {
  for (int world_size = 3; world_size <= 6; ++world_size) {
    auto ranks = Ranks::Create(world_size);
    REQUIRE_OK(ranks);
    std::vector<float> order = {1e8f, 1.0f, -1e8f, 1.0f, 3e7f, -3.0f};
    order.resize(static_cast<std::size_t>(world_size));
    std::sort(order.begin(), order.end());
    // Column i of the ranks' inputs is the i-th permutation.
    std::vector<std::vector<float>> inputs(order.size());
    std::vector<float> expected;
    do {
      for (std::size_t rank = 0; rank < order.size(); ++rank) inputs[rank].push_back(order[rank]);
      expected.push_back(TreeSum(order, 0, order.size()));
    } while (std::next_permutation(order.begin(), order.end()));
    for (const auto& result : AllReduced(*ranks, inputs, ReduceOp::kSum))
      CHECK(SameBits(result, expected));
  }
}

TEST_CASE("an element's sum does not depend on its position, nor on the size of the message") {
  auto ranks = Ranks::Create(5);
  REQUIRE_OK(ranks);
  const float column[] = {1e8f, 0.3f, -1e8f, 7e-3f, 2.5f};
  const float expected = TreeSum({column, column + 5}, 0, 5);
  for (const std::size_t count : {1u, 2u, 17u, 1000u, 70000u, 900001u}) {
    std::vector<std::vector<float>> inputs;
    for (const float value : column) inputs.emplace_back(count, value);
    for (const auto& result : AllReduced(*ranks, inputs, ReduceOp::kSum)) {
      CHECK(std::all_of(result.begin(), result.end(),
                        [&](float value) { return value == expected; }));
    }
  }
}

TEST_CASE("bits are equal on all ranks and in 100 repeats with random delays") {
  constexpr int kRanks = 7;
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 1e4f);
  std::vector<std::vector<float>> inputs(kRanks, std::vector<float>(1003));
  for (auto& input : inputs)
    std::generate(input.begin(), input.end(), [&] { return normal(random); });
  const auto first = AllReduced(*ranks, inputs, ReduceOp::kSum);
  for (const auto& result : first) CHECK(SameBits(result, first[0]));
  for (int repeat = 0; repeat < 100; ++repeat) {
    auto results = inputs;
    REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) {
      std::minstd_rand delay(static_cast<unsigned>(repeat * kRanks + worker.rank() + 1));
      std::this_thread::sleep_for(std::chrono::microseconds(delay() % 300));
      auto& mine = results[worker.rank()];
      return comm.AllReduce(ViewOf(mine), ViewOf(mine));
    }));
    for (const auto& result : results) REQUIRE(SameBits(result, first[0]));
  }
}

TEST_CASE("reduce_scatter and all_gather together give the bits of all_reduce") {
  constexpr int kRanks = 3;
  // The second is more than ranks on the CPU move at a time.
  const std::size_t part_size = GENERATE(257, 70001);
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  std::mt19937 random(9);
  std::normal_distribution<float> normal(0, 1e6f);
  std::vector<std::vector<float>> inputs(kRanks, std::vector<float>(3 * part_size));
  for (auto& input : inputs)
    std::generate(input.begin(), input.end(), [&] { return normal(random); });
  const auto expected = AllReduced(*ranks, inputs, ReduceOp::kAverage);
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    auto& mine = inputs[worker.rank()];
    std::vector<float> part(part_size);
    LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(ViewOf(mine), ViewOf(part), ReduceOp::kAverage));
    return comm.AllGather(ViewOf(part), ViewOf(mine));
  }));
  for (int rank = 0; rank < kRanks; ++rank) CHECK(SameBits(inputs[rank], expected[0]));
}

TEST_CASE("16-bit types are summed in float32 and rounded once") {
  constexpr int kRanks = 4;
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    // 2^k + 1 + 1 + 1, where each single 1 would be lost to rounding: 3 is more than half a unit
    // of 4.
    const double large = dtype == DType::kBFloat16 ? 512 : 4096;
    const double expected = large + 4;
    REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded data(dtype, 5);
      for (std::int64_t i = 0; i < 5; ++i) data.Set(i, worker.rank() == 0 ? large : 1);
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(data.tensor(), data.tensor()));
      return data.Get(4) == expected ? absl::OkStatus()
                                     : absl::InternalError(absl::StrCat("got ", data.Get(4)));
    }));
  }
}

TEST_CASE(
    "F21: infinities, denormals and signed zeros give the same bits on all ranks, a thousand times "
    "over",
    "[fault]") {
  auto ranks = Ranks::Create(3);
  REQUIRE_OK(ranks);
  const std::vector<std::vector<float>> inputs = {
      {kInfinity, 1e-45f, -0.0f, 0.0f, kInfinity, 1e-38f},
      {1, 1e-45f, -0.0f, -0.0f, -kInfinity, -1e-38f},
      {-3, -1e-45f, -0.0f, 0.0f, 2, 1e-45f}};
  const std::vector<float> sums = {
      kInfinity, 1e-45f, -0.0f, 0.0f, std::bit_cast<float>(0x7FC00000u), 1e-45f};
  const std::vector<float> minima = {-3, -1e-45f, -0.0f, -0.0f, -kInfinity, -1e-38f};
  const std::vector<float> maxima = {kInfinity, 1e-45f, -0.0f, 0.0f, kInfinity, 1e-38f};
  for (int repeat = 0; repeat < 1000; ++repeat) {
    for (const auto& result : AllReduced(*ranks, inputs, ReduceOp::kSum))
      REQUIRE(SameBits(result, sums));
  }
  for (const auto& result : AllReduced(*ranks, inputs, ReduceOp::kMin))
    CHECK(SameBits(result, minima));
  for (const auto& result : AllReduced(*ranks, inputs, ReduceOp::kMax))
    CHECK(SameBits(result, maxima));
}

TEST_CASE(
    "F20: a NaN on one rank is the same NaN at the same index on all ranks, under every "
    "operation",
    "[fault]") {
  auto ranks = Ranks::Create(4);
  REQUIRE_OK(ranks);
  for (const ReduceOp op : kAllReduceOps) {
    std::vector<std::vector<float>> inputs(4, std::vector<float>(9, 2.0f));
    inputs[2][5] = std::bit_cast<float>(0xFFFFFFFFu);
    for (const auto& result : AllReduced(*ranks, inputs, op)) {
      for (std::size_t i = 0; i < 9; ++i) CHECK(std::isnan(result[i]) == (i == 5));
      CHECK(std::bit_cast<std::uint32_t>(result[5]) == 0x7FC00000u);
    }
  }
}

TEST_CASE(
    "F20: the NaN check names rank, index and operation on all ranks, moves nothing, and leaves "
    "the "
    "group usable",
    "[fault]") {
  auto ranks = Ranks::Create(3, {.check_nan = true});
  REQUIRE_OK(ranks);
  std::vector<std::vector<float>> data(3, std::vector<float>(100, 1.0f));
  data[1][42] = std::nanf("");
  const auto statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) {
    auto& mine = data[worker.rank()];
    return comm.AllReduce(ViewOf(mine), ViewOf(mine));
  });
  for (const absl::Status& status : statuses) {
    CHECK(status == statuses[0]);
    CHECK(Says(status,
               "all_reduce #1 (float32 x 100, sum): the input of rank 1 has a NaN at index 42"));
  }
  CHECK(data[0][0] == 1.0f);
  data[1][42] = 1;
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) {
    auto& mine = data[worker.rank()];
    return comm.AllReduce(ViewOf(mine), ViewOf(mine));
  }));
  CHECK(data[2][42] == 3.0f);
}

// All ranks' input: the largest number of the type, or the lowest.
double Extreme(DType dtype, bool lowest) {
  return VisitDType(dtype, [&]<typename T>() -> double {
    if constexpr (std::is_arithmetic_v<T>) {
      using Limits = std::numeric_limits<T>;
      return static_cast<double>(lowest ? Limits::lowest() : Limits::max());
    } else {
      const double most = std::is_same_v<T, Float16> ? 65504 : 0x1.FEp127;
      return lowest ? -most : most;
    }
  });
}

// The average of `value` over the ranks of `comm`, by all_reduce in place and by reduce_scatter, of
// this many elements for each rank.
absl::Status AveragesAre(Communicator& comm, DType dtype, double value, std::int64_t part) {
  Guarded whole(dtype, part * comm.world_size());
  Guarded mine(dtype, part);
  for (std::int64_t i = 0; i < part * comm.world_size(); ++i) whole.Set(i, value);
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(whole.tensor(), mine.tensor(), ReduceOp::kAverage));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(whole.tensor(), whole.tensor(), ReduceOp::kAverage));
  for (std::int64_t i = 0; i < part * comm.world_size(); ++i) {
    if (whole.Get(i) != value || mine.Get(i % part) != value) {
      return absl::InternalError(absl::StrCat(Name(dtype), " over ", comm.world_size(),
                                              " ranks: got ", whole.Get(i), " and ",
                                              mine.Get(i % part), ", expected ", value));
    }
  }
  return absl::OkStatus();
}

TEST_CASE("an average that fits its type is right though its sum does not, in every group") {
  for (const int world_size : {1, 2, 3, 4, 9}) {
    auto ranks = Ranks::Create(world_size);
    REQUIRE_OK(ranks);
    REQUIRE_OK(ranks->Run([](Worker&, Communicator& comm) -> absl::Status {
      // All but the last; nine ranks leave a group of eight.
      LOCKSTEP_ASSIGN_OR_RETURN(const auto some,
                                comm.Split(comm.rank() + 1 < comm.world_size() ? 0 : -1, 0));
      for (const DType dtype : kAllDTypes) {
        for (const bool lowest : {false, true}) {
          for (const std::int64_t part : {1, 5, 700}) {
            // The largest 64-bit integer is not a float64; nine times the largest float, divided by
            // nine, may differ from it.
            const double value =
                dtype == DType::kInt64 ? (lowest ? -0x1p63 : 0x1.FFFFFp62) : Extreme(dtype, lowest);
            const bool rounds = IsFloating(dtype) && !IsReducedPrecision(dtype);
            if (comm.world_size() != 9 || !rounds)
              LOCKSTEP_RETURN_IF_ERROR(AveragesAre(comm, dtype, value, part));
            if (some != nullptr) LOCKSTEP_RETURN_IF_ERROR(AveragesAre(*some, dtype, value, part));
          }
        }
      }
      return absl::OkStatus();
    }));
  }
}

TEST_CASE("whole numbers wrap around, and their average is cut towards zero") {
  auto ranks = Ranks::Create(2);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    std::int32_t most = worker.rank() == 0 ? INT32_MAX : 1;
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(Tensor::View(&most, {1}, DType::kInt32),
                                            Tensor::View(&most, {1}, DType::kInt32)));
    std::int64_t average = worker.rank() == 0 ? -4 : 1;
    const Tensor tensor = Tensor::View(&average, {1}, DType::kInt64);
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor, ReduceOp::kAverage));
    return most == INT32_MIN && average == -1 ? absl::OkStatus()
                                              : absl::InternalError("not wrapped, or not cut");
  }));
}

}  // namespace
}  // namespace lockstep
