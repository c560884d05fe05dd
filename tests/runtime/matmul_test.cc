#include "lockstep/runtime/matmul.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

Worker MakeWorker() {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  LOCKSTEP_CHECK(worker.ok());
  return *std::move(worker);
}

// Small whole numbers, whose products and sums are exact in every type.
Tensor MakeMatrix(Worker& worker, std::int64_t rows, std::int64_t columns, DType dtype, int salt) {
  const Tensor exact = *worker.Empty({rows, columns}, DType::kFloat64);
  for (std::int64_t i = 0; i < rows * columns; ++i)
    exact.data<double>()[i] = static_cast<double>((i * 7 + salt) % 5 - 2);
  const Tensor matrix = *worker.Empty({rows, columns}, dtype);
  LOCKSTEP_CHECK(Copy(worker, exact, matrix).ok());
  return matrix;
}

double At(Worker& worker, const Tensor& matrix, std::int64_t i, std::int64_t j) {
  const Tensor element = *matrix.Slice(0, i, 1)->Slice(1, j, 1);
  const Tensor exact = *worker.Empty({1, 1}, DType::kFloat64);
  LOCKSTEP_CHECK(Copy(worker, element, exact).ok());
  return *exact.data<double>();
}

// Elements of out that are not `before` + op(a) op(b).
int CountWrong(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
               MatMulOptions options, double before) {
  int wrong = 0;
  const std::int64_t inner = a.extent(options.transpose_a ? 0 : 1);
  for (std::int64_t i = 0; i < out.extent(0); ++i) {
    for (std::int64_t j = 0; j < out.extent(1); ++j) {
      double sum = options.accumulate ? before : 0;
      for (std::int64_t k = 0; k < inner; ++k) {
        sum += (options.transpose_a ? At(worker, a, k, i) : At(worker, a, i, k)) *
               (options.transpose_b ? At(worker, b, j, k) : At(worker, b, k, j));
      }
      wrong += At(worker, out, i, j) != sum;
    }
  }
  return wrong;
}

struct Size {
  std::int64_t m, n, k;
};
constexpr Size kSizes[] = {{1, 1, 1},    {3, 5, 7}, {17, 1, 9}, {1, 33, 2},
                           {16, 16, 16}, {5, 4, 0}, {0, 4, 5},  {4, 0, 5}};

TEST_CASE("products are exact for whole numbers, in every type, transposed or not, added or not") {
  Worker worker = MakeWorker();
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    for (const Size& size : kSizes) {
      for (int bits = 0; bits < 8; ++bits) {
        const MatMulOptions options{.transpose_a = (bits & 1) != 0,
                                    .transpose_b = (bits & 2) != 0,
                                    .accumulate = (bits & 4) != 0};
        const Tensor a = options.transpose_a ? MakeMatrix(worker, size.k, size.m, dtype, 1)
                                             : MakeMatrix(worker, size.m, size.k, dtype, 1);
        const Tensor b = options.transpose_b ? MakeMatrix(worker, size.n, size.k, dtype, 2)
                                             : MakeMatrix(worker, size.k, size.n, dtype, 2);
        const Tensor out = *worker.Empty({size.m, size.n}, dtype);
        // What is overwritten must not shine through.
        REQUIRE_OK(Fill(worker, options.accumulate ? 3 : std::nan(""), out));
        REQUIRE_OK(MatMul(worker, a, b, out, options));
        CHECK(CountWrong(worker, a, b, out, options, 3) == 0);
      }
    }
  }
}

TEST_CASE("operands may be slices along either axis") {
  Worker worker = MakeWorker();
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Tensor a = *MakeMatrix(worker, 9, 12, dtype, 1).Slice(1, 3, 5)->Slice(0, 2, 6);
    const Tensor b = *MakeMatrix(worker, 8, 10, dtype, 2).Slice(0, 1, 5)->Slice(1, 4, 3);
    const Tensor whole = *worker.Zeros({6, 7}, dtype);
    const Tensor out = *whole.Slice(1, 2, 3);
    REQUIRE_OK(MatMul(worker, a, b, out));
    CHECK(CountWrong(worker, a, b, out, {}, 0) == 0);
    CHECK(At(worker, whole, 3, 1) == 0);
    CHECK(At(worker, whole, 3, 5) == 0);
  }
}

TEST_CASE(
    "16-bit products are summed in float32 and rounded once, or not at all into a float32 result") {
  Worker worker = MakeWorker();
  const Tensor ones = *worker.Empty({1, 4}, DType::kBFloat16);
  const Tensor column = *worker.Empty({4, 1}, DType::kBFloat16);
  REQUIRE_OK(Fill(worker, 1, ones));
  REQUIRE_OK(Fill(worker, 1, column));
  column.data<BFloat16>()[0] = BFloat16::FromFloat(512);
  const Tensor rounded = *worker.Empty({1, 1}, DType::kBFloat16);
  REQUIRE_OK(MatMul(worker, ones, column, rounded));
  CHECK(At(worker, rounded, 0, 0) == 516);  // each single 1 would be lost beside 512
  const Tensor exact = *worker.Zeros({1, 1}, DType::kFloat32);
  REQUIRE_OK(MatMul(worker, ones, column, exact));
  CHECK(*exact.data<float>() == 515);
  REQUIRE_OK(MatMul(worker, ones, column, exact, {.accumulate = true}));
  CHECK(*exact.data<float>() == 1030);
}

TEST_CASE("eight threads multiply at once, and every element is right") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&wrong, t] {
      Worker worker = MakeWorker();
      const std::int64_t m = 64 + 17 * t;
      const std::int64_t n = 130 - 11 * t;
      const std::int64_t k = 200 + 31 * t;
      const Tensor a = MakeMatrix(worker, m, k, DType::kFloat32, t);
      const Tensor b = MakeMatrix(worker, k, n, DType::kFloat32, t + 1);
      std::vector<float> expected(static_cast<std::size_t>(m * n), 0);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t l = 0; l < k; ++l) {
          for (std::int64_t j = 0; j < n; ++j) {
            expected[static_cast<std::size_t>(i * n + j)] +=
                a.data<float>()[i * k + l] * b.data<float>()[l * n + j];
          }
        }
      }
      const Tensor out = *worker.Empty({m, n}, DType::kFloat32);
      for (int repeat = 0; repeat < 100; ++repeat) {
        if (!Fill(worker, -1, out).ok() || !MatMul(worker, a, b, out).ok()) ++wrong;
        for (std::int64_t i = 0; i < m * n; ++i)
          wrong += out.data<float>()[i] != expected[static_cast<std::size_t>(i)];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("operands that do not go together are refused with both shapes") {
  Worker worker = MakeWorker();
  const Tensor a = *worker.Zeros({2, 3}, DType::kFloat32);
  const Tensor b = *worker.Zeros({4, 5}, DType::kFloat32);
  const Tensor out = *worker.Zeros({2, 5}, DType::kFloat32);
  CHECK(Says(MatMul(worker, a, b, out), "a gives [2, 3], b [4, 5]"));
  CHECK(Says(MatMul(worker, a, a, out, {.transpose_b = true}), "out [2, 2]"));
  CHECK(Says(MatMul(worker, a, *worker.Zeros({3, 5}, DType::kFloat64), out), "the types must be"));
  CHECK(Says(MatMul(worker, *worker.Zeros({2, 3}, DType::kInt32),
                    *worker.Zeros({3, 5}, DType::kInt32), *worker.Zeros({2, 5}, DType::kInt32)),
             "floating type"));
  CHECK(Says(MatMul(worker, *worker.Zeros({6}, DType::kFloat32), b, out), "two axes"));
  const Tensor elsewhere = Tensor::View(nullptr, {3, 5}, DType::kFloat32, Device::Cuda(0));
  CHECK(Says(MatMul(worker, a, elsewhere, out), "all must be on cpu"));
  constexpr std::int64_t kHuge = std::int64_t{1} << 32;
  CHECK(Says(MatMul(worker, Tensor::View(nullptr, {2, kHuge}, DType::kFloat32),
                    Tensor::View(nullptr, {kHuge, 5}, DType::kFloat32), out),
             "must be at most 2147483647"));
}

}  // namespace
}  // namespace lockstep
