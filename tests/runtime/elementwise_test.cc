#include "lockstep/runtime/elementwise.h"

#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

constexpr DType kFloatingTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16,
                                    DType::kBFloat16};

// Half a unit in the last place, relative, and some room for the math in float32.
double Tolerance(DType dtype) {
  if (dtype == DType::kFloat64) return 1e-14;
  if (dtype == DType::kFloat32) return 1e-6;
  return dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

Worker MakeWorker() {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  LOCKSTEP_CHECK(worker.ok());
  return *std::move(worker);
}

Tensor Make(Worker& worker, Shape shape, DType dtype, std::vector<double> values) {
  const Tensor exact = Tensor::View(values.data(), shape, DType::kFloat64);
  const Tensor tensor = *worker.Empty(shape, dtype);
  LOCKSTEP_CHECK(exact.size() == static_cast<std::int64_t>(values.size()) &&
                 Copy(worker, exact, tensor).ok());
  return tensor;
}

std::vector<double> Values(Worker& worker, const Tensor& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.size()));
  LOCKSTEP_CHECK(
      Copy(worker, tensor, Tensor::View(values.data(), tensor.shape(), DType::kFloat64)).ok());
  return values;
}

TEST_CASE("copies convert between all types and strides") {
  Worker worker = MakeWorker();
  for (const DType from : kAllDTypes) {
    for (const DType to : kAllDTypes) {
      const Tensor in = Make(worker, {3, 4}, from, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
      const Tensor out = *worker.Zeros({4, 6}, to);
      REQUIRE_OK(Copy(worker, *in.Slice(1, 1, 2), *out.Slice(0, 1, 3)->Slice(1, 3, 2)));
      CHECK(Values(worker, out) == std::vector<double>{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2,  0,
                                                       0, 0, 0, 5, 6, 0, 0, 0, 0, 9, 10, 0});
    }
  }
  CHECK(Says(Copy(worker, *worker.Zeros({2}, DType::kFloat32), *worker.Zeros({3}, DType::kFloat32)),
             "one shape"));
}

TEST_CASE("fill writes every element of a slice, and nothing else") {
  Worker worker = MakeWorker();
  for (const DType dtype : kAllDTypes) {
    const Tensor x = *worker.Zeros({3, 4}, dtype);
    REQUIRE_OK(Fill(worker, 7, *x.Slice(1, 1, 2)));
    CHECK(Values(worker, x) == std::vector<double>{0, 7, 7, 0, 0, 7, 7, 0, 0, 7, 7, 0});
    // One column: its elements are a row apart.
    REQUIRE_OK(Fill(worker, 9, *x.Slice(1, 3, 1)));
    CHECK(Values(worker, x) == std::vector<double>{0, 7, 7, 9, 0, 7, 7, 9, 0, 7, 7, 9});
  }
}

TEST_CASE("a bias is added to every row, and column sums undo it") {
  Worker worker = MakeWorker();
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
  CHECK(Says(
      AddBias(worker, *worker.Zeros({3}, DType::kFloat32), *worker.Zeros({3, 2}, DType::kFloat32)),
      "it must be float32 [2]"));
}

TEST_CASE("16-bit columns are summed in float32") {
  Worker worker = MakeWorker();
  const Tensor x = Make(worker, {4, 1}, DType::kBFloat16, {512, 1, 1, 1});
  const Tensor wide = *worker.Zeros({1}, DType::kFloat32);
  REQUIRE_OK(ColumnSums(worker, x, wide, false));
  CHECK(*wide.data<float>() == 515);
}

// x Phi(x) at a few points, from tables of the normal distribution to 12 digits.
struct GeluPoint {
  double x, value, slope;
};
constexpr GeluPoint kGeluPoints[] = {{0, 0, 0.5},
                                     {1, 0.841344746069, 1.083315470588},
                                     {-1, -0.158655253931, -0.083315470588},
                                     {2, 1.954499736104, 1.085231801078},
                                     {-3, -0.004049694095, -0.011945647204}};

TEST_CASE("GELU and its slope are the exact ones") {
  Worker worker = MakeWorker();
  for (const DType dtype : kFloatingTypes) {
    for (const GeluPoint& point : kGeluPoints) {
      const Tensor x = Make(worker, {1}, dtype, {point.x});
      const auto y = Gelu(worker, x);
      REQUIRE_OK(y);
      CHECK(std::abs(Values(worker, *y)[0] - point.value) <=
            2 * Tolerance(dtype) * std::abs(point.value) + 1e-11);
      const Tensor grad = Make(worker, {1}, dtype, {2});
      REQUIRE_OK(ActivateBackward(worker, Activation::kGelu, x, grad, grad));
      CHECK(std::abs(Values(worker, grad)[0] - 2 * point.slope) <=
            4 * Tolerance(dtype) * std::abs(point.slope) + 1e-10);
    }
  }
}

TEST_CASE("ReLU passes what is positive, in both directions, and a NaN") {
  Worker worker = MakeWorker();
  for (const DType dtype : kFloatingTypes) {
    const Tensor x = Make(worker, {5}, dtype, {-2, -0.0, 0, 3, std::nan("")});
    const auto y = Relu(worker, x);
    REQUIRE_OK(y);
    const auto values = Values(worker, *y);
    CHECK(std::vector<double>(values.begin(), values.begin() + 4) ==
          std::vector<double>{0, 0, 0, 3});
    CHECK(std::isnan(values[4]));
    const Tensor grad = Make(worker, {5}, dtype, {5, 5, 5, 5, 5});
    REQUIRE_OK(ActivateBackward(worker, Activation::kRelu, x, grad, grad));
    CHECK(Values(worker, grad) == std::vector<double>{0, 0, 0, 5, 0});
  }
}

TEST_CASE(
    "cross-entropy of equal logits is the logarithm of their number, and its gradient is known") {
  Worker worker = MakeWorker();
  for (const DType dtype : kFloatingTypes) {
    const Tensor logits = Make(worker, {2, 4}, dtype, {1, 1, 1, 1, 1000, 0, 0, 0});
    std::int32_t label[] = {2, 0};
    const Tensor labels = Tensor::View(label, {2}, DType::kInt32);
    const Tensor grad = *worker.Empty({2, 4}, dtype);
    const auto result = SoftmaxCrossEntropy(worker, logits, labels, grad);
    REQUIRE_OK(result);
    CHECK(std::abs(result->loss - std::log(4) / 2) < 1e-6);
    CHECK(result->num_correct == 1);  // the first of equals is not the label
    CHECK(Values(worker, grad) == std::vector<double>{0.125, 0.125, -0.375, 0.125, 0, 0, 0, 0});
    REQUIRE_OK(SoftmaxCrossEntropy(worker, logits, labels, Tensor()));
  }
}

TEST_CASE("the gradient of cross-entropy is its slope") {
  Worker worker = MakeWorker();
  std::vector<double> values = {0.3, -1.2, 2.0, 0.7, 0.1, -0.4};
  std::int32_t label[] = {1, 2};
  const Tensor labels = Tensor::View(label, {2}, DType::kInt32);
  const Tensor grad = *worker.Empty({2, 3}, DType::kFloat64);
  const auto loss = [&] {
    return SoftmaxCrossEntropy(worker, Tensor::View(values.data(), {2, 3}, DType::kFloat64), labels,
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
    CHECK(std::abs(grad.data<double>()[i] - (above - below) / 2e-5) < 1e-9);
  }
}

TEST_CASE("arguments that do not fit are refused by name") {
  Worker worker = MakeWorker();
  const Tensor x = *worker.Zeros({2, 3}, DType::kFloat32);
  std::int32_t label[] = {0, 3};
  CHECK(Says(SoftmaxCrossEntropy(worker, x, Tensor::View(label, {2}, DType::kInt32), x).status(),
             "the label of row 1 is 3; it must be from 0 to 2"));
  CHECK(Says(SoftmaxCrossEntropy(worker, x, *worker.Zeros({3}, DType::kInt32), x).status(),
             "labels is int32 [3] on cpu"));
  CHECK(Says(Activate(worker, Activation::kRelu, x, *worker.Zeros({3, 2}, DType::kFloat32)),
             "one shape"));
  CHECK(Says(Activate(worker, Activation::kRelu, *worker.Zeros({2}, DType::kInt32), x),
             "floating type"));
  CHECK(Says(Fill(worker, 0, Tensor::View(nullptr, {1}, DType::kFloat32, Device::Cuda(0))),
             "worker's device"));
}

}  // namespace
}  // namespace lockstep
