// The math over slices whose rows lie apart, against numbers in closed form: what is between the
// rows is neither read nor written.
#include <cmath>
#include <vector>

#include "lockstep/runtime/elementwise.h"
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
using testing::TestDevices;
using testing::Values;

using List = std::vector<double>;

// [2, 3] with the values given, inside a [3, 6] whose other elements are 99.
struct Inside {
  Inside(Worker& worker, DType dtype, const List& values)
      : whole(Make(worker, {3, 6}, dtype, List(18, 99))),
        part(*whole.Slice(0, 1, 2)->Slice(1, 2, 3)) {
    REQUIRE_OK(Copy(worker, Make(worker, {2, 3}, dtype, values), part));
  }
  // What `whole` holds, if `values` stand in the part.
  static List Around(const List& values) {
    List all(18, 99);
    for (std::size_t i = 0; i < 6; ++i) all[(1 + i / 3) * 6 + 2 + i % 3] = values[i];
    return all;
  }
  Tensor whole;
  Tensor part;
};

TEST_CASE("a bias is added inside wider rows, and nowhere else", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Inside x(worker, dtype, {1, 2, 3, 4, 5, 6});
      REQUIRE_OK(AddBias(worker, Make(worker, {3}, dtype, {10, 20, -30}), x.part));
      CHECK(Values(worker, x.whole) == Inside::Around({11, 22, -27, 14, 25, -24}));
    }
  }
}

TEST_CASE("columns of wider rows are summed, onto what is there if asked, over no rows too",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Inside x(worker, dtype, {1, 2, 3, 40, 50, 60});
      for (const DType to : {dtype, DType::kFloat32}) {
        if (dtype == DType::kFloat64 && to != dtype) continue;
        const Tensor sums = Make(worker, {3}, to, {7, 8, 9});
        REQUIRE_OK(ColumnSums(worker, x.part, sums, /*accumulate=*/true));
        CHECK(Values(worker, sums) == List{48, 60, 72});
        REQUIRE_OK(ColumnSums(worker, *x.part.Slice(0, 0, 0), sums, /*accumulate=*/true));
        CHECK(Values(worker, sums) == List{48, 60, 72});
        REQUIRE_OK(ColumnSums(worker, x.part, sums, /*accumulate=*/false));
        CHECK(Values(worker, sums) == List{41, 52, 63});
        REQUIRE_OK(ColumnSums(worker, *x.part.Slice(0, 0, 0), sums, /*accumulate=*/false));
        CHECK(Values(worker, sums) == List{0, 0, 0});
      }
    }
  }
}

TEST_CASE("activations read and write wider rows, and backward reads them", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const List values = {1, -2, 3, -4, 5, -6};
      const Inside x(worker, dtype, values);
      const Inside out(worker, dtype, List(6, 0));
      REQUIRE_OK(Activate(worker, Activation::kRelu, x.part, out.part));
      CHECK(Values(worker, out.whole) == Inside::Around({1, 0, 3, 0, 5, 0}));
      const Tensor flat = Make(worker, {2, 3}, dtype, List(6, 0));
      REQUIRE_OK(Activate(worker, Activation::kRelu, x.part, flat));
      CHECK(Values(worker, flat) == List{1, 0, 3, 0, 5, 0});
      REQUIRE_OK(
          Activate(worker, Activation::kRelu, Make(worker, {2, 3}, dtype, values), out.part));
      CHECK(Values(worker, out.whole) == Inside::Around({1, 0, 3, 0, 5, 0}));
      const Tensor grad_out = Make(worker, {2, 3}, dtype, {10, 20, 30, 40, 50, 60});
      const Tensor grad_in = *worker.Zeros({2, 3}, dtype);
      REQUIRE_OK(ActivateBackward(worker, Activation::kRelu, x.part, grad_out, grad_in));
      CHECK(Values(worker, grad_in) == List{10, 0, 30, 0, 50, 0});
      // The same elements, in rows of their own.
      const auto gelu_slopes = [&](const Tensor& from) {
        REQUIRE_OK(ActivateBackward(worker, Activation::kGelu, from, grad_out, grad_in));
        return Values(worker, grad_in);
      };
      CHECK(gelu_slopes(x.part) == gelu_slopes(Make(worker, {2, 3}, dtype, values)));
    }
  }
}

TEST_CASE("logits and gradient of cross-entropy lie each in rows of their own", "[gpu]") {
  // softmax of (0, ln 2, ln 5) is (1, 2, 5) / 8.
  const double two = std::log(2.0);
  const double five = std::log(5.0);
  const List logits = {0, two, five, five, 0, two};
  const List expected = {1. / 16, 2. / 16 - 0.5, 5. / 16, 5. / 16 - 0.5, 1. / 16, 2. / 16};
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Tensor labels = MakeLabels(worker, {1, 0});
      const Tensor flat = Make(worker, {2, 3}, dtype, logits);
      const Tensor flat_grad = *worker.Zeros({2, 3}, dtype);
      const Inside wide(worker, dtype, logits);
      const Inside wide_grad(worker, dtype, List(6, 0));
      for (const Tensor& in : {flat, wide.part}) {
        for (const Tensor& grad : {flat_grad, wide_grad.part}) {
          REQUIRE_OK(Fill(worker, 0, grad));
          const auto result = SoftmaxCrossEntropy(worker, in, labels, grad);
          REQUIRE_OK(result);
          CHECK(std::abs(result->loss - (std::log(4.0) + std::log(1.6)) / 2) < 8 * Epsilon(dtype));
          CHECK(result->num_correct == 1);
          CHECK(Difference(Values(worker, grad), expected, 1) < 2 * Epsilon(dtype));
        }
      }
      List around = Values(worker, wide_grad.whole);
      CHECK(around == Inside::Around(Values(worker, wide_grad.part)));
    }
  }
}

TEST_CASE("of equal logits the first is the largest, whichever row it is in", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      const Tensor logits = Make(worker, {4, 3}, dtype, {1, 5, 5, 5, 1, 5, 5, 5, 5, -2, -1, -3});
      const auto correct = [&](std::vector<std::int32_t> labels) {
        return SoftmaxCrossEntropy(worker, logits, MakeLabels(worker, std::move(labels)), Tensor())
            ->num_correct;
      };
      CHECK(correct({1, 0, 0, 1}) == 4);
      CHECK(correct({2, 2, 1, 1}) == 1);
      CHECK(correct({1, 2, 2, 0}) == 1);
    }
    CHECK(SoftmaxCrossEntropy(worker, *worker.Zeros({0, 3}, DType::kFloat32),
                              *worker.Zeros({0}, DType::kInt32), Tensor())
              ->loss == 0);
  }
}

TEST_CASE("copies and fills walk through three axes that lie apart, each tensor in its own way",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    List counted;
    for (int i = 0; i < 4 * 5 * 6; ++i) counted.push_back(i);
    const Tensor in = *Make(worker, {4, 5, 6}, DType::kFloat32, counted)
                           .Slice(0, 1, 2)
                           ->Slice(1, 2, 2)
                           ->Slice(2, 3, 2);
    const List expected = {45, 46, 51, 52, 75, 76, 81, 82};
    CHECK(Values(worker, in) == expected);
    const Tensor whole = *worker.Zeros({3, 3, 3}, DType::kFloat64);
    const Tensor out = *whole.Slice(0, 1, 2)->Slice(1, 0, 2)->Slice(2, 1, 2);
    REQUIRE_OK(Copy(worker, in, out));
    CHECK(Values(worker, whole) == List{0,  0, 0, 0, 0, 0,  0,  0, 0,  0,  45, 46, 0, 51,
                                        52, 0, 0, 0, 0, 75, 76, 0, 81, 82, 0,  0,  0});
    REQUIRE_OK(Fill(worker, 1, out));
    CHECK(Values(worker, whole) ==
          List{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0});
    // A column of each, whose elements are a row apart.
    REQUIRE_OK(Copy(worker, *in.Slice(2, 1, 1), *out.Slice(2, 0, 1)));
    CHECK(Values(worker, out) == List{46, 1, 52, 1, 76, 1, 82, 1});
  }
}

TEST_CASE("copies between types keep whole numbers, and round the others towards zero for integers",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto through = [&](DType from, DType to, const List& values) {
      const Tensor out = *worker.Empty({static_cast<std::int64_t>(values.size())}, to);
      REQUIRE_OK(Copy(worker, Make(worker, out.shape(), from, values), out));
      return Values(worker, out);
    };
    CHECK(through(DType::kFloat64, DType::kInt32, {2.75, -2.75, 1e9}) == List{2, -2, 1e9});
    CHECK(through(DType::kInt64, DType::kFloat64, {0x1p52 + 1, -7}) == List{0x1p52 + 1, -7});
    CHECK(through(DType::kInt64, DType::kInt32, {-5, 2147483647}) == List{-5, 2147483647});
    CHECK(through(DType::kFloat64, DType::kFloat32, {1 + 0x1p-25, 0x1p-149}) == List{1, 0x1p-149});
    CHECK(through(DType::kFloat32, DType::kBFloat16, {1 + 0x1p-8, 1 + 0x3p-8, 0x1p-133}) ==
          List{1, 1 + 0x1p-6, 0x1p-133});
  }
}

}  // namespace
}  // namespace lockstep
