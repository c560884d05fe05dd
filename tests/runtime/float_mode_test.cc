// The math of one device gives the same bits in whatever floating-point mode the host's thread is,
// and leaves that mode alone.
#include <bit>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/random.h"
#include "lockstep/runtime/update.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/float_modes.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::FloatMode;
using testing::kFloatingTypes;
using testing::kFloatModes;
using testing::Make;
using testing::MakeLabels;
using testing::MakeWorker;
using testing::Spread;
using testing::TestDevices;

// A call that is ready, and what it writes to.
struct Call {
  std::string name;
  std::function<absl::Status()> run;
  std::vector<Tensor> outputs;
};

// [rows, columns] of numbers around 1 and of subnormals of the type, in turn.
Tensor Mixed(Worker& worker, DType dtype, std::int64_t rows, std::int64_t columns, int salt) {
  std::vector<double> values = Spread(rows * columns, salt);
  const double tiny = dtype == DType::kFloat64 ? 1e-310 : 1e-39;
  for (std::size_t i = 0; i < values.size(); i += 2) values[i] *= tiny;
  return Make(worker, {rows, columns}, dtype, values);
}

Tensor Row(Worker& worker, DType dtype, std::int64_t columns, int salt) {
  return *Mixed(worker, dtype, 1, columns, salt).Reshape({columns});
}

void AddElementwise(std::vector<Call>& calls, Worker& worker, DType dtype) {
  const Tensor x = Mixed(worker, dtype, 5, 7, 1);
  const Tensor filled = *worker.Empty({5, 7}, dtype);
  calls.push_back({"fill", [=, &worker] { return Fill(worker, 0.1, filled); }, {filled}});
  for (const DType to : kFloatingTypes) {
    const Tensor copy = *worker.Empty({5, 7}, to);
    calls.push_back({absl::StrCat("copy to ", Name(to)),
                     [=, &worker] { return Copy(worker, x, copy); },
                     {copy}});
  }
  const Tensor biased = Mixed(worker, dtype, 5, 7, 2);
  const Tensor bias = Row(worker, dtype, 7, 3);
  calls.push_back({"add bias", [=, &worker] { return AddBias(worker, bias, biased); }, {biased}});
  const Tensor sums = Row(worker, dtype, 7, 4);
  calls.push_back(
      {"column sums", [=, &worker] { return ColumnSums(worker, x, sums, true); }, {sums}});
  for (const Activation activation : {Activation::kRelu, Activation::kGelu}) {
    const Tensor out = *worker.Empty({5, 7}, dtype);
    const Tensor grad_in = *worker.Empty({5, 7}, dtype);
    const Tensor grad_out = Mixed(worker, dtype, 5, 7, 6);
    calls.push_back(
        {"activate", [=, &worker] { return Activate(worker, activation, x, out); }, {out}});
    calls.push_back(
        {"activate backward",
         [=, &worker] { return ActivateBackward(worker, activation, x, grad_out, grad_in); },
         {grad_in}});
  }
  const Tensor uniform = *worker.Empty({5, 7}, dtype);
  calls.push_back({"uniform block",
                   [=, &worker] { return FillUniformBlock(worker, 3, 0.1f, 1, 2, 9, uniform); },
                   {uniform}});
}

void AddProducts(std::vector<Call>& calls, Worker& worker, DType dtype) {
  const Tensor a = Mixed(worker, dtype, 5, 7, 1);
  const Tensor b = Mixed(worker, dtype, 7, 4, 2);
  const Tensor bias = Row(worker, dtype, 4, 3);
  const Tensor out = Mixed(worker, dtype, 5, 4, 4);
  calls.push_back(
      {"matmul", [=, &worker] { return MatMul(worker, a, b, out, {.bias = &bias}); }, {out}});
  const Tensor sum = Mixed(worker, dtype, 5, 4, 5);
  calls.push_back({"matmul, accumulating",
                   [=, &worker] { return MatMul(worker, a, b, sum, {.accumulate = true}); },
                   {sum}});
}

// The value whose float32 or float64 copy is `master`.
Tensor Rounded(Worker& worker, const Tensor& master, DType dtype) {
  const Tensor value = *worker.Empty(master.shape(), dtype);
  LOCKSTEP_CHECK(Copy(worker, master, value).ok());
  return value;
}

void AddUpdates(std::vector<Call>& calls, Worker& worker, DType dtype) {
  if (IsReducedPrecision(dtype)) return;
  const Tensor gradient = Mixed(worker, dtype, 5, 7, 1);
  for (const DType to : kFloatingTypes) {
    if (to != dtype && !IsReducedPrecision(to)) continue;
    const Tensor velocity = Mixed(worker, dtype, 5, 7, 2);
    const Tensor master = Mixed(worker, dtype, 5, 7, 3);
    const Tensor value = Rounded(worker, master, to);
    calls.push_back({"sgd update",
                     [=, &worker] {
                       return SgdUpdate(worker, {.weight_decay = 0.1}, gradient, velocity, master,
                                        value);
                     },
                     {velocity, master, value}});
    const Tensor mean = Mixed(worker, dtype, 5, 7, 4);
    const Tensor square = Make(worker, {5, 7}, dtype, std::vector<double>(35, 1e-3));
    const Tensor weight = Mixed(worker, dtype, 5, 7, 5);
    const Tensor narrow = Rounded(worker, weight, to);
    calls.push_back({"adamw update",
                     [=, &worker] {
                       return AdamWUpdate(worker, {}, 3, gradient, mean, square, weight, narrow);
                     },
                     {mean, square, weight, narrow}});
  }
}

// All calls on tensors of `dtype`, made anew.
std::vector<Call> Calls(Worker& worker, DType dtype) {
  std::vector<Call> calls;
  AddElementwise(calls, worker, dtype);
  AddProducts(calls, worker, dtype);
  AddUpdates(calls, worker, dtype);
  const Tensor logits = Mixed(worker, dtype, 5, 7, 1);
  const Tensor grad = *worker.Empty({5, 7}, dtype);
  const Tensor labels = MakeLabels(worker, {0, 6, 3, 1, 2});
  const auto loss = std::make_shared<double>(0);
  const Tensor kept = Tensor::View(loss.get(), {1}, DType::kFloat64);
  calls.push_back({"cross-entropy",
                   [=, &worker]() -> absl::Status {
                     LOCKSTEP_ASSIGN_OR_RETURN(const auto result,
                                               SoftmaxCrossEntropy(worker, logits, labels, grad));
                     std::memcpy(loss.get(), &result.loss, sizeof(double));
                     return absl::OkStatus();
                   },
                   {grad, kept}});
  return calls;
}

std::string BitsOf(Worker& worker, const Tensor& tensor) {
  std::string bits(static_cast<std::size_t>(tensor.size_bytes()), '\0');
  if (tensor.device().is_cpu() && tensor.is_contiguous())
    return {static_cast<const char*>(tensor.raw_data()), bits.size()};
  LOCKSTEP_CHECK(
      Copy(worker, tensor, Tensor::View(bits.data(), tensor.shape(), tensor.dtype())).ok());
  return bits;
}

TEST_CASE("the math of a device gives the same bits in every floating-point mode, and keeps it",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (const DType dtype : kFloatingTypes) {
      std::vector<Call> expected = Calls(worker, dtype);
      for (const Call& call : expected) REQUIRE_OK(call.run());
      for (const FloatMode& mode : kFloatModes) {
        // A driver's own arithmetic is not ours to guard.
        if (!device.is_cpu() && mode.traps) continue;
        const std::vector<Call> calls = Calls(worker, dtype);
        for (std::size_t i = 0; i < calls.size(); ++i) {
          INFO(calls[i].name << ", " << Name(dtype) << " on " << device.ToString() << ", mode "
                             << mode.name);
          absl::Status status;
          const bool kept = KeepsMode(mode, [&] { status = calls[i].run(); });
          CHECK((kept || !device.is_cpu()));  // a driver raises flags of its own
          REQUIRE_OK(status);
          for (std::size_t k = 0; k < calls[i].outputs.size(); ++k) {
            CHECK((BitsOf(worker, calls[i].outputs[k]) == BitsOf(worker, expected[i].outputs[k])));
          }
        }
      }
    }
  }
}

TEST_CASE("16-bit numbers are rounded alike in every floating-point mode, and raise no flag") {
  const auto convert = [] {
    std::vector<std::uint16_t> bits;
    bits.reserve(4 * 3000);
    for (std::uint32_t step = 0; step < 3000; ++step) {
      // From float32's own subnormals to beyond float16's.
      const auto value = std::bit_cast<float>(step * 380000u);
      bits.push_back(Float16::FromFloat(value).bits);
      bits.push_back(BFloat16::FromFloat(-value).bits);
      bits.push_back(Float16::FromFloat(Float16{bits[step]}.ToFloat()).bits);
    }
    return bits;
  };
  const std::vector<std::uint16_t> expected = convert();
  for (const FloatMode& mode : kFloatModes) {
    INFO(mode.name);
    std::vector<std::uint16_t> bits;
    CHECK(KeepsMode(mode, [&] { bits = convert(); }));
    CHECK(bits == expected);
  }
}

}  // namespace
}  // namespace lockstep
