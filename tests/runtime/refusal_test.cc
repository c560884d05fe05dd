// What no call of the runtime's math takes: each operand of each call in turn is made one that
// cannot be, and is refused by kInvalidArgument; nothing ends the process.
#include <functional>
#include <string>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/random.h"
#include "lockstep/runtime/update.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::MakeWorker;
using testing::Says;
using testing::TestDevices;

constexpr DType kFloat = DType::kFloat32;

struct Call {
  std::string name;
  // Shapes that go together, and the operands' names in messages.
  std::vector<Shape> shapes;
  std::vector<std::string> operands;
  std::function<absl::Status(Worker&, const std::vector<Tensor>&)> make;
  bool any_shape = false;
  bool any_type = false;
};

std::vector<Call> Calls() {
  using Operands = std::vector<Tensor>;
  return {
      {"fill",
       {{2, 3}},
       {"out"},
       [](Worker& w, const Operands& t) { return Fill(w, 1, t[0]); },
       /*any_shape=*/true,
       /*any_type=*/true},
      {"copy",
       {{2, 3}, {2, 3}},
       {"in", "out"},
       [](Worker& w, const Operands& t) { return Copy(w, t[0], t[1]); },
       /*any_shape=*/false,
       /*any_type=*/true},
      {"add bias",
       {{3}, {2, 3}},
       {"bias", "x"},
       [](Worker& w, const Operands& t) { return AddBias(w, t[0], t[1]); }},
      {"column sums",
       {{2, 3}, {3}},
       {"x", "out"},
       [](Worker& w, const Operands& t) { return ColumnSums(w, t[0], t[1], true); }},
      {"activate",
       {{2, 3}, {2, 3}},
       {"x", "out"},
       [](Worker& w, const Operands& t) { return Activate(w, Activation::kRelu, t[0], t[1]); }},
      {"activate backward",
       {{2, 3}, {2, 3}, {2, 3}},
       {"x", "grad_out", "grad_in"},
       [](Worker& w, const Operands& t) {
         return ActivateBackward(w, Activation::kGelu, t[0], t[1], t[2]);
       }},
      {"cross-entropy",
       {{2, 3}, {2, 3}},
       {"logits", "grad"},
       [](Worker& w, const Operands& t) {
         return SoftmaxCrossEntropy(w, t[0], testing::MakeLabels(w, {0, 2}), t[1]).status();
       }},
      {"matmul",
       {{2, 4}, {4, 3}, {2, 3}, {3}},
       {"a is", "b is", "out is", "bias"},
       [](Worker& w, const Operands& t) { return MatMul(w, t[0], t[1], t[2], {.bias = &t[3]}); }},
      {"uniform block",
       {{2, 3}},
       {"uniform block"},
       [](Worker& w, const Operands& t) { return FillUniformBlock(w, 1, 1, 0, 0, 3, t[0]); }},
      {"sgd update",
       {{3}, {3}, {3}, {3}},
       {"gradient", "state", "state", "value"},
       [](Worker& w, const Operands& t) { return SgdUpdate(w, {}, t[0], t[1], t[2], t[3]); }},
      {"adamw update",
       {{3}, {3}, {3}, {3}, {3}},
       {"gradient", "state", "state", "state", "value"},
       [](Worker& w, const Operands& t) {
         return AdamWUpdate(w, {}, 1, t[0], t[1], t[2], t[3], t[4]);
       }},
  };
}

// One that cannot be in place of a tensor of `shape`, on `memory` that has room for it.
struct Wrong {
  std::string what;
  Tensor tensor;
};
std::vector<Wrong> WrongOnes(const Call& call, const Shape& shape, void* memory, Device device) {
  const auto view = [&](Shape of, DType dtype = kFloat) {
    return Tensor::View(memory, std::move(of), dtype, device);
  };
  Shape negative = shape;
  for (std::int64_t& extent : negative) extent = -extent;
  Shape one_negative = shape;
  one_negative.back() = -1;
  Shape endless = shape;
  endless.front() = std::int64_t{1} << 62;
  std::vector<Wrong> wrong = {
      {"null", Tensor::View(nullptr, shape, kFloat, device)},
      {"elsewhere", Tensor::View(memory, shape, kFloat, Device::Cuda(7))},
      {"negative extents", view(negative)},
      {"a negative extent", view(one_negative)},
      {"more than 2^63 bytes", view(endless)},
      {"a type that is none", view(shape, static_cast<DType>(77))},
  };
  if (!call.any_type) wrong.push_back({"int32", view(shape, DType::kInt32)});
  if (call.any_shape) return wrong;
  Shape deeper = shape;
  deeper.insert(deeper.begin(), 1);
  Shape wider = shape;
  ++wider.back();
  const Shape none(0);
  wrong.push_back({"one axis more", view(deeper)});
  wrong.push_back({"no axes", view(none)});
  wrong.push_back({"one column more", view(wider)});
  return wrong;
}

TEST_CASE("every operand of every call that cannot be is refused by name", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor memory = *worker.Zeros({64}, DType::kFloat32);
    for (const Call& call : Calls()) {
      std::vector<Tensor> good;
      for (const Shape& shape : call.shapes) good.push_back(*worker.Zeros(shape, DType::kFloat32));
      INFO(call.name);
      REQUIRE_OK(call.make(worker, good));
      for (std::size_t which = 0; which < good.size(); ++which) {
        for (const Wrong& wrong : WrongOnes(call, call.shapes[which], memory.raw_data(), device)) {
          std::vector<Tensor> operands = good;
          operands[which] = wrong.tensor;
          const absl::Status status = call.make(worker, operands);
          INFO(call.operands[which] << " with " << wrong.what << ": " << status.ToString());
          CHECK(status.code() == absl::StatusCode::kInvalidArgument);
          CHECK(Says(status, call.operands[which]));
        }
      }
    }
  }
}

TEST_CASE("a null is as good as any pointer where there are no elements", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto none = [&](Shape shape, DType dtype = DType::kFloat32) {
      return Tensor::View(nullptr, std::move(shape), dtype, device);
    };
    REQUIRE_OK(Fill(worker, 1, none({0, 3})));
    REQUIRE_OK(Copy(worker, none({0, 3}), none({0, 3}, DType::kInt64)));
    REQUIRE_OK(AddBias(worker, none({0}), none({2, 0})));
    REQUIRE_OK(Activate(worker, Activation::kGelu, none({0}), none({0})));
    REQUIRE_OK(MatMul(worker, none({0, 4}), none({4, 0}), none({0, 0})));
    REQUIRE_OK(SgdUpdate(worker, {}, none({0}), none({0}), none({0}), none({0})));
    REQUIRE_OK(SoftmaxCrossEntropy(worker, none({0, 3}), none({0}, DType::kInt32), none({0, 3})));
  }
}

TEST_CASE("rows must lie in one piece, and where a call says so, all of a tensor", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const Tensor gaps = *worker.Zeros({2, 5}, DType::kFloat32)->Slice(1, 1, 3);
    const Tensor whole = *worker.Zeros({2, 3}, DType::kFloat32);
    const Tensor column = *worker.Zeros({3, 2}, DType::kFloat32)->Slice(1, 0, 1);
    CHECK(Says(ActivateBackward(worker, Activation::kRelu, whole, gaps, whole),
               "grad_out is float32 [2, 3]"));
    CHECK(Says(ActivateBackward(worker, Activation::kRelu, whole, whole, gaps),
               "grad_in is float32 [2, 3]"));
    CHECK(Says(SgdUpdate(worker, {}, gaps, whole, whole, whole), "contiguous"));
    CHECK(Says(SgdUpdate(worker, {}, whole, gaps, whole, whole), "contiguous"));
    CHECK(Says(SgdUpdate(worker, {}, whole, whole, gaps, whole), "contiguous"));
    CHECK(Says(SgdUpdate(worker, {}, whole, whole, whole, gaps), "value is"));
    REQUIRE_OK(Activate(worker, Activation::kRelu, gaps, whole));
    REQUIRE_OK(Activate(worker, Activation::kRelu, column, column));
  }
}

TEST_CASE("types that do not go together are refused", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    const auto zeros = [&](const Shape& shape, DType dtype) { return *worker.Zeros(shape, dtype); };
    constexpr DType kF32 = DType::kFloat32;
    constexpr DType kF64 = DType::kFloat64;
    constexpr DType kBf16 = DType::kBFloat16;
    CHECK_FALSE(AddBias(worker, zeros({3}, kF32), zeros({2, 3}, kBf16)).ok());
    CHECK_FALSE(ColumnSums(worker, zeros({2, 3}, kF32), zeros({3}, kF64), false).ok());
    CHECK_FALSE(ColumnSums(worker, zeros({2, 3}, kF32), zeros({3}, kBf16), false).ok());
    CHECK_FALSE(ColumnSums(worker, zeros({2, 3}, kBf16), zeros({3}, DType::kFloat16), false).ok());
    CHECK_FALSE(Activate(worker, Activation::kRelu, zeros({3}, kF32), zeros({3}, kF64)).ok());
    CHECK_FALSE(SgdUpdate(worker, {}, zeros({3}, kF32), zeros({3}, kF64), zeros({3}, kF32),
                          zeros({3}, kF32))
                    .ok());
    CHECK_FALSE(SoftmaxCrossEntropy(worker, zeros({2, 3}, kF32), zeros({2}, kF32), Tensor()).ok());
    CHECK_FALSE(
        SoftmaxCrossEntropy(worker, zeros({2, 3}, kF32), zeros({2}, DType::kInt64), Tensor()).ok());
    const Tensor far = *zeros({4}, DType::kInt32).Slice(0, 1, 2);
    const Tensor no_labels = Tensor::View(nullptr, {2}, DType::kInt32, device);
    REQUIRE_OK(SoftmaxCrossEntropy(worker, zeros({2, 3}, kF32), far, Tensor()));
    CHECK(Says(SoftmaxCrossEntropy(worker, zeros({2, 3}, kF32), no_labels, Tensor()).status(),
               "labels is int32 [2]"));
    CHECK(Says(SoftmaxCrossEntropy(worker, zeros({2, 0}, kF32), far, Tensor()).status(),
               "there must be a class"));
    for (const std::int32_t label : {-1, 3}) {
      CHECK(Says(SoftmaxCrossEntropy(worker, zeros({2, 3}, kF32),
                                     testing::MakeLabels(worker, {label, 0}), Tensor())
                     .status(),
                 absl::StrCat("the label of row 0 is ", label)));
    }
    CHECK(Says(Activate(worker, static_cast<Activation>(9), zeros({3}, kF32), zeros({3}, kF32)),
               "activation number 9"));
    CHECK(Says(ActivateBackward(worker, static_cast<Activation>(9), zeros({3}, kF32),
                                zeros({3}, kF32), zeros({3}, kF32)),
               "activation number 9"));
  }
}

}  // namespace
}  // namespace lockstep
