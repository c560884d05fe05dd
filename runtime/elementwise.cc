#include "lockstep/runtime/elementwise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "lockstep/runtime/check_tensors.h"
#include "lockstep/runtime/cuda/math.h"

namespace lockstep {
namespace {

using internal::CheckAlike;
using internal::CheckFloating;
using internal::CheckMemory;
using internal::Compute;
using internal::ForEachRow;
using internal::InDefaultFloatMode;
using internal::Load;
using internal::RefuseTensor;
using internal::Store;
using internal::VisitFloating;

absl::Status CheckMatrix(Worker& worker, absl::string_view what, absl::string_view name,
                         const Tensor& tensor) {
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, what, name, tensor));
  return tensor.num_axes() == 2 ? absl::OkStatus()
                                : RefuseTensor(what, name, tensor, "it must have two axes");
}

absl::Status CheckActivation(absl::string_view what, Activation activation) {
  if (activation == Activation::kRelu || activation == Activation::kGelu) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      what, ": activation number ", static_cast<int>(activation), "; there are kRelu and kGelu"));
}

// The values of one row of a matrix of any stride.
template <typename T>
T* RowOf(const Tensor& matrix, std::int64_t row) {
  return matrix.data<T>() + row * matrix.strides()[0];
}

// The normal distribution's share below x. By erfc, which keeps its digits where 1 + erf loses
// them.
template <typename T>
T Phi(T x) {
  return T{0.5} * std::erfc(-x * static_cast<T>(std::numbers::sqrt2 / 2));
}

template <typename T>
T GeluOf(T x) {
  return x * Phi(x);
}
// Phi(x) + x phi(x).
template <typename T>
T GeluSlope(T x) {
  const T phi = std::exp(T{-0.5} * x * x) *
                static_cast<T>(std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
  return Phi(x) + x * phi;
}

void CopyRows(const Tensor& in, const Tensor& out) {
  const bool whole = in.is_contiguous() && out.is_contiguous();
  const std::int64_t in_step = whole ? 1 : in.strides().back();
  const std::int64_t out_step = whole ? 1 : out.strides().back();
  InDefaultFloatMode([&] {
    VisitDType(in.dtype(), [&]<typename From>() {
      VisitDType(out.dtype(), [&]<typename To>() {
        ForEachRow(in, out, [&](std::int64_t in_at, std::int64_t out_at, std::int64_t length) {
          const From* from = in.data<From>() + in_at;
          To* to = out.data<To>() + out_at;
          for (std::int64_t i = 0; i < length; ++i) {
            if constexpr (std::is_same_v<From, To>) {
              to[i * out_step] = from[i * in_step];
            } else {
              Store(to[i * out_step], Load(from[i * in_step]));
            }
          }
        });
      });
    });
  });
}

void FillOnCpu(double value, const Tensor& out) {
  VisitDType(out.dtype(), [&]<typename T>() {
    T filled;
    Store(filled, value);
    const std::int64_t step = out.num_axes() == 0 ? 1 : out.strides().back();
    ForEachRow(out, out, [&](std::int64_t at, std::int64_t, std::int64_t length) {
      // A contiguous tensor is one run, whatever the stride of an axis of one element.
      const std::int64_t stride = out.is_contiguous() ? 1 : step;
      for (std::int64_t i = 0; i < length; ++i) out.data<T>()[at + i * stride] = filled;
    });
  });
}

void CopyOnCpu(const Tensor& in, const Tensor& out) {
  // Of a transposed matrix, each row takes an element from as many lines as it is long. In bands of
  // a line's width the lines are still there for the next row.
  constexpr std::int64_t kBand = 16;
  const auto steps = [](const Tensor& tensor) {
    return !tensor.is_contiguous() && tensor.strides().back() != 1;
  };
  if (!steps(in) && !steps(out)) return CopyRows(in, out);
  for (std::int64_t begin = 0; begin < in.extent(-1); begin += kBand) {
    const std::int64_t length = std::min(kBand, in.extent(-1) - begin);
    CopyRows(*in.Slice(-1, begin, length), *out.Slice(-1, begin, length));
  }
}

absl::StatusOr<Tensor> EmptyOnCpu(const Shape& shape, DType dtype) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Worker host, Worker::Adopt(0, 1, Device::Cpu()));
  return host.Empty(shape, dtype);
}

// Between the CPU and the worker's GPU. Types are converted on the CPU and strides gathered on
// their own side, so that one run of bytes goes across.
absl::Status CopyToGpu(Worker& worker, const Tensor& in, const Tensor& out) {
  Tensor sent = in;
  if (in.dtype() != out.dtype() || !in.is_contiguous()) {
    LOCKSTEP_ASSIGN_OR_RETURN(sent, EmptyOnCpu(in.shape(), out.dtype()));
    CopyOnCpu(in, sent);
  }
  if (out.is_contiguous()) return internal::cuda::CopyAcross(worker, sent, out);
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor arrived, worker.Empty(out.shape(), out.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::CopyAcross(worker, sent, arrived));
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::Copy(worker, arrived, out));
  return worker.stream().Synchronize();
}
absl::Status CopyFromGpu(Worker& worker, const Tensor& in, const Tensor& out) {
  Tensor sent = in;
  if (!in.is_contiguous()) {
    LOCKSTEP_ASSIGN_OR_RETURN(sent, worker.Empty(in.shape(), in.dtype()));
    LOCKSTEP_RETURN_IF_ERROR(internal::cuda::Copy(worker, in, sent));
  }
  if (in.dtype() == out.dtype() && out.is_contiguous())
    return internal::cuda::CopyAcross(worker, sent, out);
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor arrived, EmptyOnCpu(in.shape(), in.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(internal::cuda::CopyAcross(worker, sent, arrived));
  CopyOnCpu(arrived, out);
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Activated(Worker& worker, Activation activation, const Tensor& x) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor out, worker.Empty(x.shape(), x.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(Activate(worker, activation, x, out));
  return out;
}

}  // namespace

absl::Status Fill(Worker& worker, double value, const Tensor& out) {
  if (out.device() != worker.device())
    return RefuseTensor("fill", "out", out, "it must be on the worker's device");
  LOCKSTEP_RETURN_IF_ERROR(CheckMemory("fill", "out", out));
  if (out.size() == 0) return absl::OkStatus();
  // The value is rounded to the type on the host, wherever it goes.
  return InDefaultFloatMode([&] {
    if (!worker.device().is_cpu()) return internal::cuda::Fill(worker, value, out);
    FillOnCpu(value, out);
    return absl::OkStatus();
  });
}

absl::Status Copy(Worker& worker, const Tensor& in, const Tensor& out) {
  LOCKSTEP_RETURN_IF_ERROR(CheckAlike("copy", "in", in, "out", out, /*any_dtype=*/true));
  const Device device = worker.device();
  const bool in_here = in.device() == device;
  const bool out_here = out.device() == device;
  if (!(in_here && (out_here || out.device().is_cpu())) && !(out_here && in.device().is_cpu())) {
    return RefuseTensor("copy", in_here ? "out" : "in", in_here ? out : in,
                        absl::StrCat("it must be on ", device.ToString(),
                                     device.is_cpu() ? "" : ", or one of the two on cpu"));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckMemory("copy", "in", in));
  LOCKSTEP_RETURN_IF_ERROR(CheckMemory("copy", "out", out));
  if (in.size() == 0) return absl::OkStatus();
  if (!in_here) return CopyToGpu(worker, in, out);
  if (!out_here) return CopyFromGpu(worker, in, out);
  if (!device.is_cpu()) return internal::cuda::Copy(worker, in, out);
  CopyOnCpu(in, out);
  return absl::OkStatus();
}

absl::Status AddBias(Worker& worker, const Tensor& bias, const Tensor& x) {
  LOCKSTEP_RETURN_IF_ERROR(CheckMatrix(worker, "add bias", "x", x));
  if (bias.shape() != Shape{x.extent(1)} || bias.dtype() != x.dtype()) {
    return RefuseTensor("add bias", "bias", bias,
                        absl::StrCat("for x, ", x.ToString(), ", it must be ", Name(x.dtype()),
                                     " [", x.extent(1), "]"));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "add bias", "bias", bias));
  if (x.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu()) return internal::cuda::AddBias(worker, bias, x);
  VisitFloating(x.dtype(), [&]<typename T>() {
    const T* const added = bias.data<T>();
    for (std::int64_t i = 0; i < x.extent(0); ++i) {
      T* const row = RowOf<T>(x, i);
      for (std::int64_t j = 0; j < x.extent(1); ++j) Store(row[j], Load(row[j]) + Load(added[j]));
    }
  });
  return absl::OkStatus();
}

absl::Status ColumnSums(Worker& worker, const Tensor& x, const Tensor& out, bool accumulate) {
  LOCKSTEP_RETURN_IF_ERROR(CheckMatrix(worker, "column sums", "x", x));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "column sums", "out", out));
  const bool widens = IsReducedPrecision(x.dtype()) && out.dtype() == DType::kFloat32;
  if (out.shape() != Shape{x.extent(1)} || (out.dtype() != x.dtype() && !widens)) {
    return RefuseTensor("column sums", "out", out,
                        absl::StrCat("for x, ", x.ToString(), ", it must be [", x.extent(1),
                                     "] of that type, or float32 for 16 bits"));
  }
  if (x.size() == 0) return accumulate ? absl::OkStatus() : Fill(worker, 0, out);
  if (!worker.device().is_cpu()) return internal::cuda::ColumnSums(worker, x, out, accumulate);
  VisitFloating(x.dtype(), [&]<typename T>() {
    VisitFloating(out.dtype(), [&]<typename Out>() {
      if constexpr (std::is_same_v<T, Out> ||
                    (!std::is_arithmetic_v<T> && std::is_same_v<Out, float>)) {
        Out* const sums = out.data<Out>();
        std::vector<Compute<T>> totals(static_cast<std::size_t>(x.extent(1)), 0);
        for (std::int64_t i = 0; i < x.extent(0); ++i) {
          const T* const row = RowOf<T>(x, i);
          for (std::size_t j = 0; j < totals.size(); ++j) totals[j] += Load(row[j]);
        }
        for (std::size_t j = 0; j < totals.size(); ++j) {
          Store(sums[j], accumulate ? Load(sums[j]) + totals[j] : totals[j]);
        }
      }
    });
  });
  return absl::OkStatus();
}

absl::Status Activate(Worker& worker, Activation activation, const Tensor& x, const Tensor& out) {
  LOCKSTEP_RETURN_IF_ERROR(CheckActivation("activate", activation));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "activate", "x", x));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "activate", "out", out));
  LOCKSTEP_RETURN_IF_ERROR(CheckAlike("activate", "x", x, "out", out));
  if (x.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu()) return internal::cuda::Activate(worker, activation, x, out);
  VisitFloating(x.dtype(), [&]<typename T>() {
    ForEachRow(x, out, [&](std::int64_t x_at, std::int64_t out_at, std::int64_t length) {
      const T* const from = x.data<T>() + x_at;
      T* const to = out.data<T>() + out_at;
      if (activation == Activation::kRelu) {
        // Written so that a NaN stays one.
        for (std::int64_t i = 0; i < length; ++i)
          Store(to[i], Load(from[i]) < 0 ? Compute<T>{0} : Load(from[i]));
      } else {
        for (std::int64_t i = 0; i < length; ++i) Store(to[i], GeluOf(Load(from[i])));
      }
    });
  });
  return absl::OkStatus();
}

absl::Status ActivateBackward(Worker& worker, Activation activation, const Tensor& x,
                              const Tensor& grad_out, const Tensor& grad_in) {
  LOCKSTEP_RETURN_IF_ERROR(CheckActivation("activate backward", activation));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "activate backward", "x", x));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "activate backward", "grad_out", grad_out));
  LOCKSTEP_RETURN_IF_ERROR(CheckFloating(worker, "activate backward", "grad_in", grad_in));
  LOCKSTEP_RETURN_IF_ERROR(CheckAlike("activate backward", "x", x, "grad_out", grad_out));
  LOCKSTEP_RETURN_IF_ERROR(CheckAlike("activate backward", "x", x, "grad_in", grad_in));
  // Contiguous, so that one offset serves the two gradients.
  if (!grad_out.is_contiguous() || !grad_in.is_contiguous()) {
    return RefuseTensor("activate backward", grad_in.is_contiguous() ? "grad_out" : "grad_in",
                        grad_in.is_contiguous() ? grad_out : grad_in, "it must be contiguous");
  }
  if (x.size() == 0) return absl::OkStatus();
  if (!worker.device().is_cpu())
    return internal::cuda::ActivateBackward(worker, activation, x, grad_out, grad_in);
  VisitFloating(x.dtype(), [&]<typename T>() {
    ForEachRow(x, grad_out, [&](std::int64_t x_at, std::int64_t at, std::int64_t length) {
      const T* const from = x.data<T>() + x_at;
      const T* const above = grad_out.data<T>() + at;
      T* const to = grad_in.data<T>() + at;
      if (activation == Activation::kRelu) {
        for (std::int64_t i = 0; i < length; ++i)
          Store(to[i], Load(from[i]) > 0 ? Load(above[i]) : Compute<T>{0});
      } else {
        for (std::int64_t i = 0; i < length; ++i)
          Store(to[i], GeluSlope(Load(from[i])) * Load(above[i]));
      }
    });
  });
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Relu(Worker& worker, const Tensor& x) {
  return Activated(worker, Activation::kRelu, x);
}
absl::StatusOr<Tensor> Gelu(Worker& worker, const Tensor& x) {
  return Activated(worker, Activation::kGelu, x);
}

}  // namespace lockstep
