// The command's checkers, each of which is seen to find what was spoiled, where it is hardest to
// see.
#include <algorithm>
#include <limits>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/ranks.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/measure_collective.h"
#include "lockstep/tools/lockstep/bench/rank_bench.h"
#include "lockstep/tools/lockstep/bench/rank_mlp.h"

namespace lockstep::tools {
namespace {

using lockstep::testing::Ranks;
using lockstep::testing::Says;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

BenchOptions OnCpu(int ranks) {
  BenchOptions options;
  options.executor = {.devices = {Device::Cpu()}, .world_size = ranks};
  options.iterations = 2;
  options.warmup = 1;
  options.min_bytes = 1 << 10;
  options.max_bytes = 4 << 10;
  return options;
}

// Turns the lowest bit of an element, or makes a NaN of it.
void Change(const Tensor& result, std::int64_t index, bool nan) {
  auto* const bytes = static_cast<unsigned char*>(result.raw_data());
  const std::size_t size = SizeOf(result.dtype());
  unsigned char* const element = bytes + static_cast<std::size_t>(index) * size;
  if (nan) {
    std::fill_n(element, size, static_cast<unsigned char>(0xFF));
  } else {
    element[0] ^= 1;
  }
}

std::int64_t NumWrong(Ranks& ranks, CollectiveKind kind, const BenchOptions& options) {
  return MeasureCollective(kind, options, *ranks.executor, *ranks.barrier, nullptr, 4096)->wrong;
}

TEST_CASE("what ReduceOp promises is what bench expects, of many ranks as of few") {
  for (const int world_size : {1, 2, 5, 62, 100}) {
    Ranks ranks = *Ranks::Create(world_size);
    BenchOptions options = OnCpu(world_size);
    options.iterations = 1;
    options.warmup = 0;
    for (const DType dtype : kAllDTypes) {
      options.dtype = dtype;
      for (const ReduceOp op : kAllReduceOps) {
        options.op = op;
        INFO(world_size << " ranks, " << Name(dtype) << " " << Name(op));
        CHECK(NumWrong(ranks, CollectiveKind::kAllReduce, options) == 0);
      }
    }
  }
}

TEST_CASE("bench finds nothing wrong with any collective, in place or not") {
  for (const int world_size : {1, 2, 5}) {
    Ranks ranks = *Ranks::Create(world_size);
    BenchOptions options = OnCpu(world_size);
    for (const bool in_place : {false, true}) {
      options.in_place = in_place;
      for (const DType dtype : {DType::kInt64, DType::kBFloat16}) {
        options.dtype = dtype;
        INFO(world_size << " ranks, " << Name(dtype) << " " << in_place);
        for (const ReduceOp op : kAllReduceOps) {
          options.op = op;
          CHECK(NumWrong(ranks, CollectiveKind::kReduceScatter, options) == 0);
        }
        CHECK(NumWrong(ranks, CollectiveKind::kAllGather, options) == 0);
        CHECK(NumWrong(ranks, CollectiveKind::kBroadcast, options) == 0);
        CHECK(NumWrong(ranks, CollectiveKind::kAllToAll, options) == 0);
      }
    }
  }
}

TEST_CASE("bench finds one bit that is wrong, of every collective and type, on any rank") {
  Ranks ranks = *Ranks::Create(3);
  for (const CollectiveKind kind :
       {CollectiveKind::kAllReduce, CollectiveKind::kReduceScatter, CollectiveKind::kAllGather,
        CollectiveKind::kBroadcast, CollectiveKind::kAllToAll}) {
    for (const DType dtype : kAllDTypes) {
      for (const bool in_place : {false, true}) {
        INFO(Name(kind) << " " << Name(dtype) << " " << in_place);
        BenchOptions options = OnCpu(3);
        options.dtype = dtype;
        options.in_place = in_place;
        CHECK(NumWrong(ranks, kind, options) == 0);
        for (const int spoiled : {0, 1, 2}) {
          options.spoil = [&](int rank, const Tensor& result) {
            if (rank == spoiled) Change(result, result.size() - 1, /*nan=*/false);
          };
          CHECK(NumWrong(ranks, kind, options) == 1);
        }
        options.spoil = [](int, const Tensor& result) { Change(result, 0, /*nan=*/true); };
        CHECK(NumWrong(ranks, kind, options) == 3);
        options.check = false;
        CHECK(NumWrong(ranks, kind, options) == 0);
      }
    }
  }
}

TEST_CASE("bench finds what was not written, in place too") {
  for (const bool in_place : {false, true}) {
    BenchOptions options = OnCpu(3);
    options.in_place = in_place;
    Ranks ranks = *Ranks::Create(3);
    std::vector<std::int64_t> wrong(3);
    const CollectiveSize size = SizeFor(CollectiveKind::kAllGather, 1200, DType::kFloat32, 3);
    REQUIRE_OK(ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      RankBench bench(CollectiveKind::kAllGather, options, worker, size);
      LOCKSTEP_ASSIGN_OR_RETURN(const CollectiveBuffers buffers, bench.MakeBuffers());
      // As in the rounds that are timed; the last one does nothing.
      LOCKSTEP_RETURN_IF_ERROR(bench.Queue(comm, buffers));
      LOCKSTEP_ASSIGN_OR_RETURN(wrong[worker.rank()],
                                bench.CountWrong(buffers, [] { return absl::OkStatus(); }));
      return absl::OkStatus();
    }));
    for (const std::int64_t count : wrong) CHECK(count == (in_place ? 200 : 300));
  }
}

TEST_CASE("bench's exit code tells of every size and group, not of the last alone") {
  BenchOptions options = OnCpu(2);
  options.spoil = [](int rank, const Tensor& result) {
    if (rank == 1 && result.size() == 256) Change(result, 7, /*nan=*/false);
  };
  const absl::Status table = BenchCollective(CollectiveKind::kAllReduce, options);
  CHECK(absl::IsDataLoss(table));
  CHECK(Says(table, "all_reduce: 1 elements were wrong"));
  options.json = true;
  CHECK(absl::IsDataLoss(BenchCollective(CollectiveKind::kAllReduce, options)));
  options.groups = 3;
  CHECK(Says(BenchCollective(CollectiveKind::kAllReduce, options), "3 elements were wrong"));
  options.spoil = nullptr;
  CHECK(BenchCollective(CollectiveKind::kAllReduce, options).ok());
}

TEST_CASE("bench startup looks at the sum of every start") {
  BenchOptions options = OnCpu(2);
  int sums = 0;
  options.spoil = [&](int rank, const Tensor& result) {
    if (rank == 1 && ++sums == 6) Change(result, 255, /*nan=*/false);
  };
  CHECK(Says(BenchStartup(options), "the first sum was wrong"));
}

TEST_CASE("bench mlp counts what is far, and NaN and infinity are, on either side") {
  const std::vector<double> right = {1, -4, 0.5};
  const auto far = [&](std::vector<double> found) {
    return RankMlp::CountFar(DType::kFloat16, found, right);
  };
  CHECK(far(right) == 0);
  CHECK(far({1, -4, 0.5 + 4.0 / 256}) == 0);  // a part of the largest
  CHECK(far({1, -4, 0.5 + 4.1 / 256}) == 1);
  CHECK(far({-1, -4, 0.4}) == 2);
  for (const double bad : {kNan, kInfinity, -kInfinity}) {
    CHECK(far({1, bad, 0.5}) == 1);
    CHECK(RankMlp::CountFar(DType::kFloat32, {1, 3, 9}, {1, bad, 2}) == 2);
    CHECK(RankMlp::CountFar(DType::kFloat32, {1, bad, 2}, {1, bad, 2}) == 1);
  }
}

TEST_CASE("bench mlp fails for one wrong element, of either pass, any rank and any size") {
  BenchOptions options = OnCpu(2);
  options.mlp = {.hidden = 6, .inner = 8, .rows = {2, 1}, .dtype = DType::kFloat32};
  CHECK(BenchMlp(options).ok());
  for (const int pass : {1, 2}) {
    int seen = 0;
    options.mlp.spoil = [&](int rank, const Tensor& result) {
      if (rank == 1 && result.size() == 12 && ++seen == pass) result.data<float>()[11] = 100;
    };
    const absl::Status status = BenchMlp(options);
    CHECK(absl::IsDataLoss(status));
    CHECK(Says(status, "mlp: 1 elements were wrong"));
  }
}

}  // namespace
}  // namespace lockstep::tools
