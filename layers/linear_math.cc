#include "lockstep/layers/linear_math.h"

#include <cmath>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/float_mode.h"

namespace lockstep::internal {
namespace {

std::string TypeAndShape(const Tensor& tensor) {
  return absl::StrCat(Name(tensor.dtype()), " ", ToString(tensor.shape()));
}

}  // namespace

absl::Status CheckOptions(absl::string_view layer, std::initializer_list<Size> sizes, DType dtype) {
  for (const Size& size : sizes) {
    if (size.value >= 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(layer, ": ", size.name, " is ", size.value, "; it must be at least 0"));
  }
  if (!IsFloating(dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(layer, ": type ", Name(dtype), "; it must be a floating type"));
  }
  return absl::OkStatus();
}

SharedOption Shared(absl::string_view name, std::int64_t size) {
  return {name, absl::StrCat(size)};
}
SharedOption Shared(absl::string_view name, bool flag) { return {name, flag ? "true" : "false"}; }
SharedOption Shared(absl::string_view name, DType dtype) {
  return {name, std::string(Name(dtype))};
}
SharedOption SharedSeed(std::uint64_t seed) { return {"seed", absl::StrCat(seed)}; }

absl::Status CheckOperand(absl::string_view call, absl::string_view which, const Tensor& tensor,
                          const Features& features, DType dtype) {
  const bool right_shape = tensor.num_axes() == 2 && tensor.extent(1) == features.held;
  if (right_shape && tensor.dtype() == dtype) return absl::OkStatus();
  std::string reason = absl::StrCat("the layer's type is ", Name(dtype));
  if (!right_shape) {
    reason = absl::StrCat(features.name, " is ", features.full);
    if (features.held != features.full) {
      absl::StrAppend(&reason, ", of which this rank holds ", features.held);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(call, ": ", which, " is ", TypeAndShape(tensor),
                                                 ", but ", reason, "; it must be ", Name(dtype),
                                                 " [tokens, ", features.held, "]"));
}

absl::Status CheckTokens(absl::string_view call, const Tensor& grad_out, const Tensor& x) {
  if (grad_out.extent(0) == x.extent(0)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(call, ": grad_out is ", TypeAndShape(grad_out),
                                                 ", but x is ", TypeAndShape(x),
                                                 "; their first axes, the tokens, must be equal"));
}

absl::Status InitializeLinear(Worker& worker, std::uint64_t seed, std::int64_t in_features,
                              const Parameter& weight, const std::optional<Parameter>& bias) {
  if (in_features == 0) return absl::OkStatus();  // zero since Create, where the bound is infinite
  float bound;
  InDefaultFloatMode(
      [&] { bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in_features))); });
  LOCKSTEP_RETURN_IF_ERROR(weight.InitializeUniform(worker, seed, bound));
  if (!bias.has_value()) return absl::OkStatus();
  return bias->InitializeUniform(worker, DeriveSeed(seed, 0), bound);
}

std::uint64_t DeriveSeed(std::uint64_t seed, std::uint64_t index) {
  // The finalizer of SplitMix64. Seeds that merely lie some steps apart would draw the same
  // sequence, shifted.
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

absl::StatusOr<Tensor> TimesWeight(Worker& worker, const Tensor& x, const Parameter& weight,
                                   const Parameter* bias) {
  const Tensor& w = weight.value();
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, worker.Empty({x.extent(0), w.extent(1)}, x.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(
      MatMul(worker, x, w, y, {.bias = bias == nullptr ? nullptr : &bias->value()}));
  return y;
}

absl::StatusOr<Tensor> TimesWeightTransposed(Worker& worker, const Tensor& grad_out,
                                             const Parameter& weight) {
  const Tensor& w = weight.value();
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x,
                            worker.Empty({grad_out.extent(0), w.extent(0)}, grad_out.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(MatMul(worker, grad_out, w, grad_x, {.transpose_b = true}));
  return grad_x;
}

absl::Status ParameterGradients(Worker& worker, const Tensor& x, const Tensor& grad_out,
                                const Parameter& weight, const std::optional<Parameter>& bias,
                                BackwardOptions options, MatMulOptions how) {
  how.transpose_a = true;
  how.accumulate = options.accumulate;
  LOCKSTEP_RETURN_IF_ERROR(MatMul(worker, x, grad_out, weight.gradient(), how));
  if (!bias.has_value()) return absl::OkStatus();
  return ColumnSums(worker, grad_out, bias->gradient(), options.accumulate);
}

}  // namespace lockstep::internal
