// The command's own arithmetic: what its figures and its expectations are made of.
#include <cmath>
#include <numeric>
#include <set>

#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/bench/collective_data.h"
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

using lockstep::testing::Says;

TEST_CASE("percentiles are the nearest rank's") {
  std::vector<double> values(100);
  std::iota(values.rbegin(), values.rend(), 1);
  const Times hundred = Summarize(values);
  CHECK(hundred.p50 == 50);
  CHECK(hundred.p99 == 99);
  CHECK(hundred.min == 1);
  CHECK(hundred.mean == 50.5);
  const Times one = Summarize({7});
  CHECK((one.p50 == 7 && one.p99 == 7 && one.min == 7 && one.mean == 7));
  const Times none = Summarize({});
  CHECK((none.p50 == 0 && none.p99 == 0 && none.min == 0 && none.mean == 0));
  CHECK(Summarize({3, 1, 2}).p50 == 2);
  CHECK(Summarize({4, 3, 1, 2}).p50 == 2);
  CHECK(Summarize({4, 3, 1, 2}).p99 == 4);
  CHECK(Percentile({1, 2, 3, 4}, 0) == 1);
  CHECK(Percentile({1, 2, 3, 4}, 0.75) == 3);
  CHECK(Percentile({1, 2, 3, 4}, 0.76) == 4);
  CHECK(Percentile({1, 2, 3, 4}, 1) == 4);
}

// nccl-tests, doc/PERFORMANCE.md.
TEST_CASE("bus bandwidths are those of nccl-tests") {
  CHECK(BusFactor(CollectiveKind::kAllReduce, 8) == 2 * 7 / 8.0);
  CHECK(BusFactor(CollectiveKind::kAllReduce, 2) == 1);
  CHECK(BusFactor(CollectiveKind::kReduceScatter, 8) == 7 / 8.0);
  CHECK(BusFactor(CollectiveKind::kAllGather, 4) == 3 / 4.0);
  CHECK(BusFactor(CollectiveKind::kAllToAll, 4) == 3 / 4.0);
  CHECK(BusFactor(CollectiveKind::kBroadcast, 8) == 1);
}

TEST_CASE("sizes are the largest that the ranks can share, as nccl-tests counts them") {
  const CollectiveSize sum = SizeFor(CollectiveKind::kAllReduce, 1027, DType::kFloat32, 3);
  CHECK((sum.count == 256 && sum.in_count == 256 && sum.out_count == 256 && sum.bytes == 1024));
  const CollectiveSize root = SizeFor(CollectiveKind::kBroadcast, 1027, DType::kInt64, 3);
  CHECK((root.count == 128 && root.in_count == 128 && root.out_count == 128 && root.bytes == 1024));
  const CollectiveSize scatter = SizeFor(CollectiveKind::kReduceScatter, 1027, DType::kFloat32, 3);
  CHECK((scatter.in_count == 255 && scatter.out_count == 85 && scatter.bytes == 1020));
  const CollectiveSize gather = SizeFor(CollectiveKind::kAllGather, 1027, DType::kBFloat16, 3);
  CHECK((gather.in_count == 171 && gather.out_count == 513 && gather.bytes == 1026));
  const CollectiveSize all = SizeFor(CollectiveKind::kAllToAll, 1027, DType::kFloat64, 3);
  CHECK((all.in_count == 126 && all.out_count == 126 && all.bytes == 1008));
}

TEST_CASE("sizes in bytes are read with their suffix, up to 2^62") {
  for (const auto& [text, bytes] : {std::pair<const char*, std::int64_t>{"0", 0},
                                    {"1023", 1023},
                                    {"4K", 4096},
                                    {"4k", 4096},
                                    {"64M", 64 << 20},
                                    {"3m", 3 << 20},
                                    {"1G", 1 << 30},
                                    {"2g", std::int64_t{2} << 30},
                                    {"4294967296G", std::int64_t{1} << 62},
                                    {"4611686018427387904", std::int64_t{1} << 62}}) {
    CHECK(ParseBytes(text).value_or(-1) == bytes);
  }
  for (const char* text : {"", "K", "-1", "+1", "1.5K", "4KK", "4T", " 4", "0x10", "4 K"})
    CHECK(Says(ParseBytes(text).status(), "is not a size in bytes"));
  for (const char* text : {"4294967297G", "4611686018427387905", "99999999999999999999"})
    CHECK(Says(ParseBytes(text).status(), "is out of range"));
}

TEST_CASE("bench steps from the smallest size to the largest by the factor, and tells its rates") {
  const Sandbox sandbox;
  const auto sizes = [&](const std::string& flags) {
    const auto document = Document(
        sandbox.Run("bench all_reduce --devices=cpu --ranks=2 -n 2 -w 0 --format=json " + flags));
    std::vector<std::int64_t> all;
    for (const auto& row : document["rows"]) {
      all.push_back(row["size_bytes"]);
      const double algbw = row["size_bytes"].get<double>() / row["p50_us"].get<double>() / 1e3;
      CHECK(std::abs(row["algbw_gb_s"].get<double>() - algbw) <= 1e-9 * algbw);
      CHECK(row["busbw_gb_s"] == row["algbw_gb_s"]);  // of two ranks
      CHECK(row["count"] == row["size_bytes"].get<std::int64_t>() / 4);
    }
    return all;
  };
  CHECK(sizes("-b 1K -e 4K") == std::vector<std::int64_t>{1024, 2048, 4096});
  CHECK(sizes("-b 1K -e 5000 -f 1.5") == std::vector<std::int64_t>{1024, 1536, 2304, 3456});
  CHECK(sizes("-b 64 -e 64") == std::vector<std::int64_t>{64});
  CHECK(sizes("-b 0 -e 12 -f 4") == std::vector<std::int64_t>{0, 0, 4});
}

TEST_CASE("inputs differ by rank and place, and integers come from all of their range") {
  for (const ReduceOp op : kAllReduceOps) {
    std::set<std::int64_t> seen;
    std::int64_t least = 0;
    std::int64_t greatest = 0;
    for (int rank = 0; rank < 4; ++rank) {
      for (std::int64_t index = 0; index < 250; ++index) {
        const auto value = InputAt<std::int64_t>(op, rank, index);
        seen.insert(value);
        least = std::min(least, value);
        greatest = std::max(greatest, value);
        if (op == ReduceOp::kProduct) CHECK(value % 2 != 0);
      }
    }
    CHECK(seen.size() == 1000);
    CHECK(least < -(std::int64_t{1} << 62));
    CHECK(greatest > std::int64_t{1} << 62);
    CHECK(InputAt<float>(op, 0, 1) != InputAt<float>(op, 1, 1));
    CHECK(InputAt<float>(op, 0, 1) != InputAt<float>(op, 0, 2));
  }
}

template <typename T>
T Expected(ReduceOp op, int ranks, std::int64_t index) {
  const CollectiveSize size = SizeFor(CollectiveKind::kAllReduce, 1 << 10, DTypeOf<T>(), ranks);
  return ExpectedAt<T>(CollectiveKind::kAllReduce, op, 0, ranks, size, index);
}

TEST_CASE("of integers, sums and products are expected to wrap, and averages not to") {
  bool wrapped = false;
  bool below_zero = false;
  for (std::int64_t index = 0; index < 50; ++index) {
    const auto a = InputAt<std::int32_t>(ReduceOp::kSum, 0, index);
    const auto b = InputAt<std::int32_t>(ReduceOp::kSum, 1, index);
    const std::int64_t sum = std::int64_t{a} + b;
    CHECK(Expected<std::int32_t>(ReduceOp::kSum, 2, index) == static_cast<std::int32_t>(sum));
    CHECK(Expected<std::int32_t>(ReduceOp::kAverage, 2, index) == sum / 2);
    CHECK(Expected<std::int32_t>(ReduceOp::kMin, 2, index) == std::min(a, b));
    CHECK(Expected<std::int32_t>(ReduceOp::kMax, 2, index) == std::max(a, b));
    const std::int64_t product = std::int64_t{InputAt<std::int32_t>(ReduceOp::kProduct, 0, index)} *
                                 InputAt<std::int32_t>(ReduceOp::kProduct, 1, index);
    CHECK(Expected<std::int32_t>(ReduceOp::kProduct, 2, index) ==
          static_cast<std::int32_t>(product));
    wrapped = wrapped || sum != static_cast<std::int32_t>(sum);
    below_zero = below_zero || (sum < 0 && sum % 2 != 0);
  }
  CHECK(wrapped);
  CHECK(below_zero);  // where towards zero is not downwards
  CHECK(Expected<std::int32_t>(ReduceOp::kProduct, 100, 3) % 2 != 0);
}

TEST_CASE("of floats, what is expected is rounded once, and an average is the sum's quotient") {
  for (std::int64_t index = 0; index < 42; ++index) {
    for (const int ranks : {3, 62, 1000}) {
      double sum = 0;
      double product = 1;
      for (int rank = 0; rank < ranks; ++rank) {
        sum += InputAt<double>(ReduceOp::kSum, rank, index);
        product *= InputAt<double>(ReduceOp::kProduct, rank, index);
      }
      CHECK(std::abs(std::log2(std::abs(product))) <= 1);
      const auto whole = static_cast<float>(sum);
      const float average = whole / static_cast<float>(ranks);
      CHECK(Expected<double>(ReduceOp::kSum, ranks, index) == sum);
      CHECK(Expected<float>(ReduceOp::kProduct, ranks, index) == static_cast<float>(product));
      CHECK(Expected<float>(ReduceOp::kAverage, ranks, index) == average);
      CHECK(Expected<double>(ReduceOp::kAverage, ranks, index) == sum / ranks);
      CHECK(Expected<BFloat16>(ReduceOp::kSum, ranks, index).bits ==
            BFloat16::FromFloat(whole).bits);
      CHECK(Expected<Float16>(ReduceOp::kAverage, ranks, index).bits ==
            Float16::FromFloat(average).bits);
    }
  }
}

}  // namespace
}  // namespace lockstep::tools
