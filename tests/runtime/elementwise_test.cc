#include "lockstep/runtime/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Difference;
using testing::Epsilon;
using testing::kFloatingTypes;
using testing::Make;
using testing::MakeLabels;
using testing::MakeWorker;
using testing::Says;
using testing::Spread;
using testing::TestDevices;
using testing::Values;

// A slice of a larger tensor of these values: rows apart, and at addresses that are not round.
Tensor MakeSlice(Worker& worker, std::int64_t rows, std::int64_t columns, DType dtype, int salt) {
  const Tensor whole =
      Make(worker, {rows + 1, columns + 3}, dtype, Spread((rows + 1) * (columns + 3), salt));
  return *whole.Slice(0, 1, rows)->Slice(1, 1, columns);
}

struct Size {
  std::int64_t rows, columns;
};
constexpr Size kSizes[] = {{1, 1}, {3, 5}, {64, 128}, {257, 33}};

TEST_CASE("copies convert between all types and strides", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType from : kAllDTypes) {
      for (const DType to : kAllDTypes) {
        const Tensor in = Make(worker, {3, 4}, from, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
        const Tensor out = *worker.Zeros({4, 6}, to);
        REQUIRE_OK(Copy(worker, *in.Slice(1, 1, 2), *out.Slice(0, 1, 3)->Slice(1, 3, 2)));
        CHECK(Values(worker, out) == std::vector<double>{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2,  0,
                                                         0, 0, 0, 5, 6, 0, 0, 0, 0, 9, 10, 0});
      }
    }
    CHECK(
        Says(Copy(worker, *worker.Zeros({2}, DType::kFloat32), *worker.Zeros({3}, DType::kFloat32)),
             "one shape"));
  }
}

TEST_CASE("copies turn a matrix the other way round, in the source and in the copy", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const auto& [rows, columns] : kSizes) {
      const std::int64_t size = rows * columns;
      const Tensor in = Make(worker, {rows, columns}, DType::kFloat32, Spread(size));
      const Tensor read = *worker.Zeros({columns, rows}, DType::kFloat64);
      const Tensor written = *worker.Zeros({columns, rows}, DType::kFloat32);
      REQUIRE_OK(Copy(worker, *in.Transpose(), read));
      REQUIRE_OK(Copy(worker, in, *written.Transpose()));
      const std::vector<double> before = Values(worker, in);
      const std::vector<double> after = Values(worker, read);
      CHECK(after == Values(worker, written));
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t turned = i % columns * rows + i / columns;
        REQUIRE(before[i] == after[turned]);
      }
    }
  }
}

TEST_CASE("fill writes every element of a slice, and nothing else", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kAllDTypes) {
      const Tensor x = *worker.Zeros({3, 4}, dtype);
      REQUIRE_OK(Fill(worker, 7, *x.Slice(1, 1, 2)));
      CHECK(Values(worker, x) == std::vector<double>{0, 7, 7, 0, 0, 7, 7, 0, 0, 7, 7, 0});
      // One column: its elements are a row apart.
      REQUIRE_OK(Fill(worker, 9, *x.Slice(1, 3, 1)));
      CHECK(Values(worker, x) == std::vector<double>{0, 7, 7, 9, 0, 7, 7, 9, 0, 7, 7, 9});
    }
  }
}

TEST_CASE("a bias is added to every row, and column sums undo it", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Tensor x = Make(worker, {3, 2}, dtype, {1, 2, 3, 4, 5, 6});
      REQUIRE_OK(AddBias(worker, Make(worker, {2}, dtype, {10, -20}), x));
      CHECK(Values(worker, x) == std::vector<double>{11, -18, 13, -16, 15, -14});
      const Tensor sums = Make(worker, {2}, dtype, {100, 100});
      REQUIRE_OK(ColumnSums(worker, x, sums, /*accumulate=*/true));
      CHECK(Values(worker, sums) == std::vector<double>{139, 52});
      REQUIRE_OK(ColumnSums(worker, x, sums, /*accumulate=*/false));
      CHECK(Values(worker, sums) == std::vector<double>{39, -48});
      const Tensor none = *worker.Empty({0, 2}, dtype);
      REQUIRE_OK(ColumnSums(worker, none, sums, /*accumulate=*/false));
      CHECK(Values(worker, sums) == std::vector<double>{0, 0});
    }
    CHECK(Says(AddBias(worker, *worker.Zeros({3}, DType::kFloat32),
                       *worker.Zeros({3, 2}, DType::kFloat32)),
               "it must be float32 [2]"));
  }
}

TEST_CASE("16-bit columns are summed in float32", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor x = Make(worker, {4, 1}, DType::kBFloat16, {512, 1, 1, 1});
    const Tensor wide = *worker.Zeros({1}, DType::kFloat32);
    REQUIRE_OK(ColumnSums(worker, x, wide, false));
    CHECK(Values(worker, wide)[0] == 515);
  }
}

TEST_CASE(
    "cross-entropy of equal logits is the logarithm of their number, and its gradient is known",
    "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Tensor logits = Make(worker, {2, 4}, dtype, {1, 1, 1, 1, 1000, 0, 0, 0});
      const Tensor labels = MakeLabels(worker, {2, 0});
      const Tensor grad = *worker.Empty({2, 4}, dtype);
      const auto result = SoftmaxCrossEntropy(worker, logits, labels, grad);
      REQUIRE_OK(result);
      CHECK(std::abs(result->loss - std::log(4) / 2) < 1e-6);
      CHECK(result->num_correct == 1);  // the first of equals is not the label
      CHECK(Values(worker, grad) == std::vector<double>{0.125, 0.125, -0.375, 0.125, 0, 0, 0, 0});
      REQUIRE_OK(SoftmaxCrossEntropy(worker, logits, labels, Tensor()));
    }
  }
}

TEST_CASE("the gradient of cross-entropy is its slope", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    std::vector<double> values = {0.3, -1.2, 2.0, 0.7, 0.1, -0.4};
    const Tensor labels = MakeLabels(worker, {1, 2});
    const Tensor grad = *worker.Empty({2, 3}, DType::kFloat64);
    const auto loss = [&] {
      return SoftmaxCrossEntropy(worker, Make(worker, {2, 3}, DType::kFloat64, values), labels,
                                 grad)
          ->loss;
    };
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double middle = values[i];
      values[i] = middle + 1e-5;
      const double above = loss();
      values[i] = middle - 1e-5;
      const double below = loss();
      values[i] = middle;
      loss();
      CHECK(std::abs(Values(worker, grad)[i] - (above - below) / 2e-5) < 1e-9);
    }
  }
}

TEST_CASE("arguments that do not fit are refused by name", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor x = *worker.Zeros({2, 3}, DType::kFloat32);
    CHECK(Says(SoftmaxCrossEntropy(worker, x, MakeLabels(worker, {0, 3}), x).status(),
               "the label of row 1 is 3; it must be from 0 to 2"));
    CHECK(Says(SoftmaxCrossEntropy(worker, x, *worker.Zeros({3}, DType::kInt32), x).status(),
               "labels is int32 [3] on " + device.ToString()));
    CHECK(Says(Activate(worker, Activation::kRelu, x, *worker.Zeros({3, 2}, DType::kFloat32)),
               "one shape"));
    CHECK(Says(Activate(worker, Activation::kRelu, *worker.Zeros({2}, DType::kInt32), x),
               "floating type"));
    const Tensor elsewhere = Tensor::View(nullptr, {2, 3}, DType::kFloat32, Device::Cuda(7));
    CHECK(Says(Fill(worker, 0, elsewhere), "worker's device"));
    CHECK(Says(Copy(worker, elsewhere, x), "in is float32 [2, 3] on cuda:7; it must be on"));
    CHECK(Says(Copy(worker, x, elsewhere), "out is float32 [2, 3] on cuda:7; it must be on"));
  }
}

TEST_CASE("every device rounds, keeps and copies alike, whatever the strides", "[gpu]") {
  // Ties, the largest and the smallest numbers of both 16-bit types, and what lies beyond.
  std::vector<double> edges = {65519, 65520, 1e6, 3.4e38, 1 + 0x1p-8, 1 + 0x3p-8,  1 + 0x1p-11,
                               6e-8,  2e-8,  -0., 1e-41,  -INFINITY,  std::nan("")};
  Worker cpu = MakeWorker();
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType from : kAllDTypes) {
      for (const DType to : kAllDTypes) {
        const auto copied = [&](Worker& on) {
          const Tensor in = Make(on, {3, 4, 10}, from, Spread(120));
          const Tensor out = *on.Zeros({5, 2, 9}, to);
          REQUIRE_OK(
              Copy(on, *in.Slice(1, 1, 2)->Slice(2, 1, 8), *out.Slice(0, 2, 3)->Slice(2, 1, 8)));
          return Values(on, out);
        };
        CHECK(copied(worker) == copied(cpu));
        const auto rounded = [&](Worker& on) {
          const Tensor out = *on.Empty({13}, to);
          REQUIRE_OK(Copy(on, Make(on, {13}, from, edges), out));
          return Values(on, out);
        };
        if (IsFloating(from) && IsFloating(to))
          CHECK(Difference(rounded(worker), rounded(cpu)) == 0);
      }
    }
    const auto through_eight_axes = [](Worker& on) {
      Tensor in = Make(on, Shape(8, 3), DType::kFloat32, Spread(6561));
      for (int axis = 0; axis < 8; ++axis) in = *in.Slice(axis, 1, 2);
      return Values(on, in);
    };
    CHECK(through_eight_axes(worker) == through_eight_axes(cpu));
  }
}

TEST_CASE("a copy between the CPU and a worker's device may be strided and convert on both sides",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    std::vector<float> host = {1, 2, 3, 4, 5, 6};
    const Tensor there = Tensor::View(host.data(), {2, 3}, DType::kFloat32);
    const Tensor here = *worker.Zeros({2, 4}, DType::kBFloat16);
    REQUIRE_OK(Copy(worker, *there.Slice(1, 1, 2), *here.Slice(1, 2, 2)));
    CHECK(Values(worker, here) == std::vector<double>{0, 0, 2, 3, 0, 0, 5, 6});
    REQUIRE_OK(Copy(worker, *here.Slice(1, 1, 2), *there.Slice(1, 0, 2)));
    CHECK(host == std::vector<float>{0, 2, 3, 0, 5, 6});
    REQUIRE_OK(Copy(worker, *there.Slice(0, 0, 0), *here.Slice(0, 0, 0)->Slice(1, 0, 3)));
  }
}

TEST_CASE("every device computes what the CPU does, in slices of odd sizes too", "[gpu]") {
  Worker cpu = MakeWorker();
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      for (const Size& size : kSizes) {
        const auto [rows, columns] = size;
        const auto biased = [&](Worker& on, bool round) {
          const Tensor slice = MakeSlice(on, rows, columns, dtype, 1);
          const Tensor x = round ? Make(on, {rows, columns}, dtype, Spread(rows * columns)) : slice;
          REQUIRE_OK(AddBias(on, Make(on, {columns}, dtype, Spread(columns, 3)), x));
          return Values(on, x);
        };
        CHECK(biased(worker, true) == biased(cpu, true));
        CHECK(biased(worker, false) == biased(cpu, false));
        const auto activated = [&](Worker& on, Activation activation, bool backward) {
          const Tensor x = MakeSlice(on, rows, columns, dtype, 1);
          const Tensor out = Make(on, {rows, columns}, dtype, Spread(rows * columns, 2));
          REQUIRE_OK(backward ? ActivateBackward(on, activation, x, out, out)
                              : Activate(on, activation, x, out));
          return Values(on, out);
        };
        for (const bool backward : {false, true}) {
          CHECK(activated(worker, Activation::kRelu, backward) ==
                activated(cpu, Activation::kRelu, backward));
          CHECK(Difference(activated(worker, Activation::kGelu, backward),
                           activated(cpu, Activation::kGelu, backward), 1) <= 8 * Epsilon(dtype));
        }
      }
    }
  }
}

TEST_CASE("sums of many rows are exact for whole numbers, and the same every time for all others",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      for (const Size& size : {Size{1, 700}, Size{127, 31}, Size{1000, 1}, Size{5000, 65}}) {
        const auto [rows, columns] = size;
        const Tensor ones = *worker.Empty({rows, columns + 1}, dtype);
        REQUIRE_OK(Fill(worker, 1, ones));
        const Tensor sums = *worker.Zeros({columns}, dtype);
        REQUIRE_OK(ColumnSums(worker, *ones.Slice(1, 1, columns), sums, /*accumulate=*/true));
        const Tensor expected = *worker.Empty({columns}, dtype);
        REQUIRE_OK(Fill(worker, static_cast<double>(rows), expected));
        CHECK(Values(worker, sums) == Values(worker, expected));
        const Tensor x = MakeSlice(worker, rows, columns, dtype, 5);
        REQUIRE_OK(ColumnSums(worker, x, sums, false));
        const auto first = Values(worker, sums);
        REQUIRE_OK(ColumnSums(worker, x, sums, false));
        CHECK(Values(worker, sums) == first);
      }
    }
  }
}

TEST_CASE("every device finds the CPU's loss and gradient, which may replace the logits", "[gpu]") {
  Worker cpu = MakeWorker();
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      for (const Size& size : {Size{1, 1}, Size{300, 10}, Size{7, 257}, Size{3, 5001}}) {
        const auto [rows, classes] = size;
        std::vector<std::int32_t> labels;
        for (std::int64_t row = 0; row < rows; ++row)
          labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
        const auto run = [&](Worker& on, CrossEntropyResult& result) {
          const Tensor logits = MakeSlice(on, rows, classes, dtype, 1);
          const auto found = SoftmaxCrossEntropy(on, logits, MakeLabels(on, labels), logits);
          REQUIRE_OK(found);
          result = *found;
          return Values(on, logits);
        };
        CrossEntropyResult expected, result;
        const auto expected_grad = run(cpu, expected);
        CHECK(Difference(run(worker, result), expected_grad, 1 / static_cast<double>(rows)) <=
              4 * Epsilon(dtype));
        CHECK(std::abs(result.loss - expected.loss) <=
              (dtype == DType::kFloat64 ? 1e-13 : 1e-6) * std::max(1.0, expected.loss));
        CHECK(result.num_correct == expected.num_correct);
      }
    }
  }
}

}  // namespace
}  // namespace lockstep
