#include "lockstep/runtime/matmul.h"

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/random.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Gpus;
using testing::kFloatingTypes;
using testing::Make;
using testing::MakeWorker;
using testing::Says;
using testing::TestDevices;
using testing::Values;

// Small whole numbers, whose products and sums are exact in every type.
Tensor MakeMatrix(Worker& worker, std::int64_t rows, std::int64_t columns, DType dtype, int salt) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < rows * columns; ++i)
    values.push_back(static_cast<double>((i * 7 + salt) % 5 - 2));
  return Make(worker, {rows, columns}, dtype, std::move(values));
}
Tensor MakeVector(Worker& worker, std::int64_t size, DType dtype, int salt) {
  return *MakeMatrix(worker, 1, size, dtype, salt).Reshape({size});
}

// A matrix's values by row and column, as op(matrix) has them.
class Grid {
 public:
  Grid(Worker& worker, const Tensor& matrix, bool transposed)
      : values_(Values(worker, matrix)), columns_(matrix.extent(1)), transposed_(transposed) {}
  double operator()(std::int64_t i, std::int64_t j) const {
    return values_[transposed_ ? j * columns_ + i : i * columns_ + j];
  }

 private:
  const std::vector<double> values_;
  const std::int64_t columns_;
  const bool transposed_;
};

// op(a) op(b), plus `before` if that is added to, plus the bias: row after row, rounded to `dtype`.
std::vector<double> Product(Worker& worker, const Tensor& a, const Tensor& b, DType dtype,
                            MatMulOptions options = {}, double before = 0) {
  const Grid left(worker, a, options.transpose_a);
  const Grid right(worker, b, options.transpose_b);
  const std::int64_t rows = a.extent(options.transpose_a ? 1 : 0);
  const std::int64_t columns = b.extent(options.transpose_b ? 0 : 1);
  const std::int64_t inner = a.extent(options.transpose_a ? 0 : 1);
  std::vector<double> added(static_cast<std::size_t>(columns), options.accumulate ? before : 0);
  if (options.bias != nullptr) added = Values(worker, *options.bias);
  std::vector<double> sums;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      double sum = added[j];
      for (std::int64_t k = 0; k < inner; ++k) sum += left(i, k) * right(k, j);
      sums.push_back(sum);
    }
  }
  Worker cpu = MakeWorker();
  return Values(cpu, Make(cpu, {rows, columns}, dtype, std::move(sums)));
}

// Each transposed or not, and the product alone, added to what there is, or with a bias.
constexpr int kNumOptions = 12;
MatMulOptions OptionsOf(int index, const Tensor* bias = nullptr) {
  return {.transpose_a = (index & 1) != 0,
          .transpose_b = (index & 2) != 0,
          .accumulate = index / 4 == 1,
          .bias = index / 4 == 2 ? bias : nullptr};
}

struct Size {
  std::int64_t m, n, k;
};
constexpr Size kSizes[] = {{1, 1, 1}, {3, 5, 7}, {17, 1, 9}, {1, 33, 2},    {16, 16, 16},
                           {5, 4, 0}, {0, 4, 5}, {4, 0, 5},  {64, 128, 32}, {65, 33, 257}};

TEST_CASE(
    "products are exact for whole numbers, in every type, transposed or not, added or not, with a "
    "bias or without",
    "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      for (const Size& size : kSizes) {
        for (int index = 0; index < kNumOptions; ++index) {
          MatMulOptions options = OptionsOf(index);
          const Tensor a = options.transpose_a ? MakeMatrix(worker, size.k, size.m, dtype, 1)
                                               : MakeMatrix(worker, size.m, size.k, dtype, 1);
          const Tensor b = options.transpose_b ? MakeMatrix(worker, size.n, size.k, dtype, 2)
                                               : MakeMatrix(worker, size.k, size.n, dtype, 2);
          for (const DType to : {dtype, DType::kFloat32}) {
            if (dtype == DType::kFloat64 && to != dtype) continue;
            const Tensor bias = MakeVector(worker, size.n, to, 3);
            options = OptionsOf(index, &bias);
            const Tensor out = *worker.Empty({size.m, size.n}, to);
            // What is overwritten must not shine through.
            REQUIRE_OK(Fill(worker, options.accumulate ? 3 : std::nan(""), out));
            REQUIRE_OK(MatMul(worker, a, b, out, options));
            CHECK(Values(worker, out) == Product(worker, a, b, to, options, 3));
          }
        }
      }
    }
  }
}

TEST_CASE("operands may be slices along either axis, from any element on", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      // Rows of an even and of an odd length; round addresses and others.
      for (const std::int64_t extra : {0, 1}) {
        for (const std::int64_t from : {0, 1, 8}) {
          for (int index = 0; index < kNumOptions; ++index) {
            const Tensor bias = *MakeVector(worker, from + 16 + extra, dtype, 3).Slice(0, from, 16);
            const MatMulOptions options = OptionsOf(index, &bias);
            const auto slice = [&](std::int64_t rows, std::int64_t columns, bool transposed,
                                   int salt) {
              if (transposed) std::swap(rows, columns);
              const Tensor whole = MakeMatrix(worker, rows + 2, columns + 16 + extra, dtype, salt);
              return *whole.Slice(0, 1, rows)->Slice(1, from, columns);
            };
            const Tensor a = slice(24, 40, options.transpose_a, 1);
            const Tensor b = slice(40, 16, options.transpose_b, 2);
            const Tensor whole = *worker.Zeros({24, 32 + extra}, dtype);
            const Tensor out = *whole.Slice(1, from, 16);
            REQUIRE_OK(MatMul(worker, a, b, out, options));
            CHECK(Values(worker, out) == Product(worker, a, b, dtype, options));
            const Tensor right = *whole.Slice(1, from + 16, 16 + extra - from);
            CHECK(Values(worker, right) ==
                  std::vector<double>(static_cast<std::size_t>(right.size()), 0));
          }
        }
      }
    }
  }
}

TEST_CASE("eight threads multiply at once, and every element is right", "[gpu]") {
  for (const Device device : TestDevices()) {
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&wrong, device, t] {
        Worker worker = MakeWorker(device);
        const std::int64_t m = 64 + 17 * t;
        const std::int64_t n = 130 - 11 * t;
        const std::int64_t k = 200 + 31 * t;
        const Tensor a = MakeMatrix(worker, m, k, DType::kFloat32, t);
        const Tensor b = MakeMatrix(worker, k, n, DType::kFloat32, t + 1);
        const std::vector<double> expected = Product(worker, a, b, DType::kFloat32);
        const Tensor out = *worker.Empty({m, n}, DType::kFloat32);
        for (int repeat = 0; repeat < 100; ++repeat) {
          if (!Fill(worker, -1, out).ok() || !MatMul(worker, a, b, out).ok()) ++wrong;
          if (Values(worker, out) != expected) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE("operands that do not go together are refused with both shapes", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor a = *worker.Zeros({2, 3}, DType::kFloat32);
    const Tensor b = *worker.Zeros({4, 5}, DType::kFloat32);
    const Tensor out = *worker.Zeros({2, 5}, DType::kFloat32);
    CHECK(Says(MatMul(worker, a, b, out), "a gives [2, 3], b [4, 5]"));
    CHECK(Says(MatMul(worker, a, a, out, {.transpose_b = true}), "out [2, 2]"));
    CHECK(
        Says(MatMul(worker, a, *worker.Zeros({3, 5}, DType::kFloat64), out), "the types must be"));
    CHECK(Says(MatMul(worker, *worker.Zeros({2, 3}, DType::kInt32),
                      *worker.Zeros({3, 5}, DType::kInt32), *worker.Zeros({2, 5}, DType::kInt32)),
               "floating type"));
    CHECK(Says(MatMul(worker, *worker.Zeros({6}, DType::kFloat32), b, out), "two axes"));
    const Tensor elsewhere = Tensor::View(nullptr, {3, 5}, DType::kFloat32, Device::Cuda(7));
    CHECK(Says(MatMul(worker, a, elsewhere, out), "all must be on " + device.ToString()));
    constexpr std::int64_t kHuge = std::int64_t{1} << 32;
    const auto huge = [&](std::int64_t m, std::int64_t k, std::int64_t n) {
      const auto view = [&](Shape shape) {
        return Tensor::View(nullptr, std::move(shape), DType::kFloat32, device);
      };
      return MatMul(worker, view({m, k}), view({k, n}), view({m, n}));
    };
    CHECK(Says(huge(2, kHuge, 5), "must be at most 2147483647"));
    CHECK(Says(huge(kHuge, 2, 5), "must be at most 2147483647"));
    CHECK(Says(huge(2, 3, kHuge), "must be at most 2147483647"));
    CHECK(Says(huge(2, 3, 5), "its pointer is null"));
  }
}

TEST_CASE("on a GPU a row of a batch-invariant product has the same bits whatever is beside it",
          "[gpu]") {
  for (const Device device : Gpus()) {
    Worker worker = MakeWorker(device);
    const int most = NumMultiprocessors(device);
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      // Long sums of few rows, for which other products are cut along k.
      const std::int64_t m = 96, n = 256, k = 16384;
      const Tensor a = *worker.Empty({m, k}, dtype);
      const Tensor b = *worker.Empty({k, n}, dtype);
      REQUIRE_OK(FillUniformBlock(worker, 1, /*bound=*/1, 0, 0, k, a));
      REQUIRE_OK(FillUniformBlock(worker, 2, /*bound=*/1, 0, 0, n, b));
      const Tensor whole = *worker.Empty({m, n}, dtype);
      REQUIRE_OK(MatMul(worker, a, b, whole, {.batch_invariant = true}));
      const std::vector<double> expected = Values(worker, whole);
      for (const std::int64_t rows : {1, 8, 24, 96}) {
        for (const int multiprocessors : {0, 1, most - 4, most}) {
          INFO(rows << " rows on " << multiprocessors << " multiprocessors of "
                    << device.ToString());
          const Tensor out = *worker.Empty({m, n}, dtype);
          for (std::int64_t begin = 0; begin < m; begin += rows) {
            REQUIRE_OK(MatMul(worker, *a.Slice(0, begin, rows), b, *out.Slice(0, begin, rows),
                              {.max_multiprocessors = multiprocessors, .batch_invariant = true}));
          }
          CHECK(Values(worker, out) == expected);
        }
      }
    }
  }
}

TEST_CASE("a product on fewer than no multiprocessors is refused") {
  Worker worker = MakeWorker();
  const Tensor x = *worker.Zeros({2, 2}, DType::kFloat32);
  CHECK(Says(
      MatMul(worker, x, x, *worker.Zeros({2, 2}, DType::kFloat32), {.max_multiprocessors = -1}),
      "max_multiprocessors is -1, it must be at least 0"));
}

TEST_CASE("a bias that does not fit is refused, and so is one beside a sum in place", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto multiply = [&](const Shape& shape, DType bias_dtype, DType dtype,
                              bool accumulate = false, std::int64_t k = 3) {
      const Tensor bias = *worker.Zeros(shape, bias_dtype);
      return MatMul(worker, *worker.Zeros({2, k}, dtype), *worker.Zeros({k, 5}, dtype),
                    *worker.Zeros({2, 5}, DType::kFloat32),
                    {.accumulate = accumulate, .bias = &bias});
    };
    constexpr DType kF32 = DType::kFloat32;
    constexpr DType kBf16 = DType::kBFloat16;
    REQUIRE_OK(multiply({5}, kF32, kF32));
    REQUIRE_OK(multiply({5}, kF32, kBf16));
    const std::string right = "the bias must be float32 [5] on " + device.ToString();
    for (const absl::Status& status :
         {multiply({4}, kF32, kF32), multiply({1, 5}, kF32, kF32), multiply({}, kF32, kF32),
          multiply({5}, DType::kFloat64, kF32), multiply({5}, kBf16, kBf16),
          multiply({4}, kF32, kF32, false, /*k=*/0)}) {
      CHECK(status.code() == absl::StatusCode::kInvalidArgument);
      CHECK(Says(status, right));
    }
    CHECK(Says(multiply({4}, kF32, kF32), "bias is float32 [4] on " + device.ToString()));
    const absl::Status both = multiply({5}, kF32, kF32, /*accumulate=*/true);
    CHECK(both.code() == absl::StatusCode::kInvalidArgument);
    CHECK(Says(both, "either accumulate or a bias"));

    const Tensor out = *worker.Zeros({2, 5}, kF32);
    const Tensor elsewhere = Tensor::View(nullptr, {5}, kF32, Device::Cuda(7));
    const absl::Status there = MatMul(worker, *worker.Zeros({2, 3}, kF32),
                                      *worker.Zeros({3, 5}, kF32), out, {.bias = &elsewhere});
    CHECK(Says(there, right));
    CHECK(Says(there, "bias is float32 [5] on cuda:7"));
  }
}

}  // namespace
}  // namespace lockstep
