#include "lockstep/runtime/matmul.h"

#include <cblas.h>

#include <limits>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/float_mode.h"

namespace lockstep {
namespace {

absl::Status Refuse(const Tensor& a, const Tensor& b, const Tensor& out, MatMulOptions options,
                    absl::string_view right) {
  return absl::InvalidArgumentError(
      absl::StrCat("matmul: a is ", a.ToString(), options.transpose_a ? " transposed" : "",
                   ", b is ", b.ToString(), options.transpose_b ? " transposed" : "", ", out is ",
                   out.ToString(), options.bias == nullptr ? "" : ", bias is ",
                   options.bias == nullptr ? "" : options.bias->ToString(), "; ", right));
}

// k.
std::int64_t InnerExtent(const Tensor& a, MatMulOptions options) {
  return a.extent(options.transpose_a ? 0 : 1);
}

bool FitsRows(const Tensor& tensor) {
  return tensor.num_axes() == 2 && (tensor.strides()[1] == 1 || tensor.extent(1) <= 1);
}

absl::Status CheckBias(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                       MatMulOptions options) {
  if (options.bias == nullptr) return absl::OkStatus();
  if (options.accumulate)
    return Refuse(a, b, out, options, "there must be either accumulate or a bias");
  const Tensor& bias = *options.bias;
  if (bias.shape() == Shape{out.extent(1)} && bias.dtype() == out.dtype() &&
      bias.device() == worker.device() && bias.is_contiguous()) {
    return absl::OkStatus();
  }
  return Refuse(a, b, out, options,
                absl::StrCat("the bias must be ", Name(out.dtype()), " [", out.extent(1), "] on ",
                             worker.device().ToString(), ", contiguous"));
}

absl::Status CheckOperands(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                           MatMulOptions options) {
  if (!FitsRows(a) || !FitsRows(b) || !FitsRows(out)) {
    return Refuse(a, b, out, options, "all must have two axes, the last with stride 1");
  }
  const std::int64_t inner_a = InnerExtent(a, options);
  const std::int64_t inner_b = b.extent(options.transpose_b ? 1 : 0);
  const std::int64_t m = a.extent(options.transpose_a ? 1 : 0);
  const std::int64_t n = b.extent(options.transpose_b ? 0 : 1);
  if (inner_a != inner_b || out.extent(0) != m || out.extent(1) != n) {
    return Refuse(a, b, out, options,
                  absl::StrCat("a gives [", m, ", ", inner_a, "], b [", inner_b, ", ", n,
                               "], so the inner extents must be equal and out [", m, ", ", n, "]"));
  }
  const bool widens = IsReducedPrecision(a.dtype()) && out.dtype() == DType::kFloat32;
  if (!IsFloating(a.dtype()) || a.dtype() != b.dtype() || (out.dtype() != a.dtype() && !widens)) {
    return Refuse(a, b, out, options,
                  "the types must be one floating type, or two of 16 bits and a float32 out");
  }
  if (a.device() != worker.device() || b.device() != worker.device() ||
      out.device() != worker.device()) {
    return Refuse(a, b, out, options, absl::StrCat("all must be on ", worker.device().ToString()));
  }
  constexpr std::int64_t kMax = std::numeric_limits<f77_int>::max();
  for (const Tensor* tensor : {&a, &b, &out}) {
    if (tensor->extent(0) > kMax || tensor->extent(1) > kMax || tensor->strides()[0] > kMax) {
      return Refuse(a, b, out, options,
                    absl::StrCat("extents and row strides must be at most ", kMax));
    }
  }
  if (options.max_multiprocessors < 0) {
    return Refuse(a, b, out, options,
                  absl::StrCat("max_multiprocessors is ", options.max_multiprocessors,
                               ", it must be at least 0"));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckBias(worker, a, b, out, options));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckMemory("matmul", "a", a));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckMemory("matmul", "b", b));
  LOCKSTEP_RETURN_IF_ERROR(internal::CheckMemory("matmul", "out", out));
  if (options.bias == nullptr) return absl::OkStatus();
  return internal::CheckMemory("matmul", "bias", *options.bias);
}

// BLAS asks for a row stride of at least the row, also where there is one row or none.
f77_int RowStride(const Tensor& tensor) {
  const std::int64_t stride = tensor.extent(0) > 1 ? tensor.strides()[0] : tensor.extent(1);
  return static_cast<f77_int>(stride > 0 ? stride : 1);
}

// All of one type, float32 or float64.
absl::Status MultiplySame(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                          MatMulOptions options) {
  const auto trans_a = options.transpose_a ? CblasTrans : CblasNoTrans;
  const auto trans_b = options.transpose_b ? CblasTrans : CblasNoTrans;
  const auto m = static_cast<f77_int>(out.extent(0));
  const auto n = static_cast<f77_int>(out.extent(1));
  const auto k = static_cast<f77_int>(InnerExtent(a, options));
  if (a.dtype() == DType::kFloat64) {
    cblas_dgemm(CblasRowMajor, trans_a, trans_b, m, n, k, 1.0, a.data<double>(), RowStride(a),
                b.data<double>(), RowStride(b), options.accumulate ? 1.0 : 0.0, out.data<double>(),
                RowStride(out));
  } else {
    cblas_sgemm(CblasRowMajor, trans_a, trans_b, m, n, k, 1.0f, a.data<float>(), RowStride(a),
                b.data<float>(), RowStride(b), options.accumulate ? 1.0f : 0.0f, out.data<float>(),
                RowStride(out));
  }
  return options.bias == nullptr ? absl::OkStatus() : AddBias(worker, *options.bias, out);
}

// A 16-bit matrix as a contiguous float32 one.
absl::StatusOr<Tensor> Widened(Worker& worker, const Tensor& tensor) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor wide, worker.Empty(tensor.shape(), DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, tensor, wide));
  return wide;
}

// In float32 from end to end, and rounded once where out is 16-bit.
absl::Status MultiplyWidened(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                             MatMulOptions options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor wide_a, Widened(worker, a));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor wide_b, Widened(worker, b));
  if (out.dtype() == DType::kFloat32) return MultiplySame(worker, wide_a, wide_b, out, options);
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor wide_out, worker.Empty(out.shape(), DType::kFloat32));
  if (options.accumulate) LOCKSTEP_RETURN_IF_ERROR(Copy(worker, out, wide_out));
  Tensor wide_bias;
  if (options.bias != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(wide_bias, Widened(worker, *options.bias));
    options.bias = &wide_bias;
  }
  LOCKSTEP_RETURN_IF_ERROR(MultiplySame(worker, wide_a, wide_b, wide_out, options));
  return Copy(worker, wide_out, out);
}

// The product where k = 0.
absl::Status WithoutTerms(Worker& worker, MatMulOptions options, const Tensor& out) {
  if (options.accumulate) return absl::OkStatus();
  LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 0, out));
  return options.bias == nullptr ? absl::OkStatus() : AddBias(worker, *options.bias, out);
}

}  // namespace

absl::Status MatMul(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                    MatMulOptions options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckOperands(worker, a, b, out, options));
  if (out.size() == 0) return absl::OkStatus();
  if (InnerExtent(a, options) == 0) return WithoutTerms(worker, options, out);
  const internal::DefaultFloatMode mode;  // what follows calls the library, on either device
  if (!worker.device().is_cpu()) return internal::cuda::MatMul(worker, a, b, out, options);
  if (IsReducedPrecision(a.dtype())) return MultiplyWidened(worker, a, b, out, options);
  return MultiplySame(worker, a, b, out, options);
}

}  // namespace lockstep
