#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <unordered_map>

#include "lockstep/runtime/cuda/cuda.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/worker_state.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

absl::Status BlasStatus(Device device, absl::string_view call, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call.substr(0, call.find('(')), " on ", device.ToString(), ": ",
                   cublasLtGetStatusName(status), " (", cublasLtGetStatusString(status), ")");
  switch (status) {
    case CUBLAS_STATUS_ALLOC_FAILED:
      return absl::ResourceExhaustedError(text);
    case CUBLAS_STATUS_EXECUTION_FAILED:
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return absl::InternalError(text);
    default:
      return absl::UnavailableError(text);
  }
}

#define LOCKSTEP_RETURN_IF_BLAS_ERROR(device, ...) \
  LOCKSTEP_RETURN_IF_ERROR(BlasStatus((device), #__VA_ARGS__, (__VA_ARGS__)))

cudaDataType_t CudaType(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return CUDA_R_64F;
    case DType::kFloat16:
      return CUDA_R_16F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

// What distinguishes one product from another to the library.
struct PlanKey {
  struct Operand {
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t row_stride;
    std::int64_t alignment_bytes;
    DType dtype;

    bool operator==(const Operand&) const = default;
  };

  Operand a;
  Operand b;
  Operand out;
  bool transpose_a;
  bool transpose_b;
  bool accumulate;

  bool operator==(const PlanKey&) const = default;
};

struct PlanKeyHash {
  std::size_t operator()(const PlanKey& key) const {
    // FNV-1a, a word at a time.
    std::uint64_t hash = 0xCBF29CE484222325u;
    const auto mix = [&hash](std::int64_t word) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x100000001B3u;
      hash ^= hash >> 32;
    };
    for (const PlanKey::Operand& operand : {key.a, key.b, key.out}) {
      mix(operand.rows);
      mix(operand.columns);
      mix(operand.row_stride);
      mix(operand.alignment_bytes);
      mix(static_cast<std::int64_t>(operand.dtype));
    }
    mix(key.transpose_a + 2 * key.transpose_b + 4 * key.accumulate);
    return hash;
  }
};

PlanKey::Operand DescribeOperand(const Tensor& tensor) {
  // Kernels for whole 16-byte accesses and for more, and the ones that take everything.
  std::int64_t alignment = 256;
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.raw_data());
  if (address % 256 != 0) alignment = 16;
  if (address % 16 != 0) alignment = static_cast<std::int64_t>(SizeOf(tensor.dtype()));
  return {.rows = tensor.extent(0),
          .columns = tensor.extent(1),
          // At least the row, also where there is one row.
          .row_stride = tensor.extent(0) > 1 ? tensor.strides()[0] : tensor.extent(1),
          .alignment_bytes = alignment,
          .dtype = tensor.dtype()};
}

struct Plan {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t a;
  cublasLtMatrixLayoutOpaque_t b;
  cublasLtMatrixLayoutOpaque_t out;
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspace_bytes;
};

}  // namespace

class MatMulPlans {
 public:
  explicit MatMulPlans(Device device) : device_(device) {}
  ~MatMulPlans() {
    const DeviceGuard guard(device_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
    cudaFree(workspace_);
  }
  MatMulPlans(const MatMulPlans&) = delete;
  MatMulPlans& operator=(const MatMulPlans&) = delete;

  absl::Status Create() {
    const DeviceGuard guard(device_);
    LOCKSTEP_RETURN_IF_BLAS_ERROR(device_, cublasLtCreate(&handle_));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, cudaMalloc(&workspace_, kWorkspaceBytes));
    return absl::OkStatus();
  }

  absl::Status Run(cudaStream_t stream, const Tensor& a, const Tensor& b, const Tensor& out,
                   MatMulOptions options) {
    const PlanKey key{.a = DescribeOperand(a),
                      .b = DescribeOperand(b),
                      .out = DescribeOperand(out),
                      .transpose_a = options.transpose_a,
                      .transpose_b = options.transpose_b,
                      .accumulate = options.accumulate};
    const DeviceGuard guard(device_);
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      LOCKSTEP_ASSIGN_OR_RETURN(const Plan plan, MakePlan(key));
      found = plans_.emplace(key, plan).first;
    }
    Plan& plan = found->second;
    const bool wide = a.dtype() == DType::kFloat64;
    const double scales[] = {1, options.accumulate ? 1.0 : 0.0};
    const float narrow_scales[] = {1, options.accumulate ? 1.0f : 0.0f};
    const void* const alpha = wide ? static_cast<const void*>(&scales[0]) : &narrow_scales[0];
    const void* const beta = wide ? static_cast<const void*>(&scales[1]) : &narrow_scales[1];
    // b comes first: see MakePlan.
    LOCKSTEP_RETURN_IF_BLAS_ERROR(
        device_, cublasLtMatmul(handle_, &plan.product, alpha, b.raw_data(), &plan.b, a.raw_data(),
                                &plan.a, beta, out.raw_data(), &plan.out, out.raw_data(), &plan.out,
                                &plan.algorithm, workspace_, plan.workspace_bytes, stream));
    return absl::OkStatus();
  }

 private:
  // The library counts columns first. A row-major matrix is its own transpose there, and
  // out^T = op(b)^T op(a)^T: so b is its first operand, and nothing is moved.
  absl::StatusOr<Plan> MakePlan(const PlanKey& key) const {
    const bool wide = key.a.dtype == DType::kFloat64;
    Plan plan;
    LOCKSTEP_RETURN_IF_BLAS_ERROR(
        device_,
        cublasLtMatmulDescInit(&plan.product, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                               wide ? CUDA_R_64F : CUDA_R_32F));
    LOCKSTEP_RETURN_IF_ERROR(SetTranspose(plan, CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b));
    LOCKSTEP_RETURN_IF_ERROR(SetTranspose(plan, CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a));
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.a, key.a));
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.b, key.b));
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.out, key.out));
    cublasLtMatmulPreferenceOpaque_t preference;
    LOCKSTEP_RETURN_IF_BLAS_ERROR(device_, cublasLtMatmulPreferenceInit(&preference));
    LOCKSTEP_RETURN_IF_ERROR(SetPreferences(preference, key));
    cublasLtMatmulHeuristicResult_t best;
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, &plan.product, &plan.b, &plan.a, &plan.out,
                                       &plan.out, &preference, 1, &best, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0))
      return NoAlgorithm(key);
    LOCKSTEP_RETURN_IF_ERROR(BlasStatus(device_, "cublasLtMatmulAlgoGetHeuristic", status));
    plan.algorithm = best.algo;
    plan.workspace_bytes = best.workspaceSize;
    return plan;
  }

  absl::Status SetTranspose(Plan& plan, cublasLtMatmulDescAttributes_t which,
                            bool transpose) const {
    const std::int32_t value = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    LOCKSTEP_RETURN_IF_BLAS_ERROR(
        device_, cublasLtMatmulDescSetAttribute(&plan.product, which, &value, sizeof(value)));
    return absl::OkStatus();
  }

  absl::Status SetLayout(cublasLtMatrixLayoutOpaque_t& layout,
                         const PlanKey::Operand& operand) const {
    LOCKSTEP_RETURN_IF_BLAS_ERROR(
        device_, cublasLtMatrixLayoutInit(
                     &layout, CudaType(operand.dtype), static_cast<std::uint64_t>(operand.columns),
                     static_cast<std::uint64_t>(operand.rows), operand.row_stride));
    return absl::OkStatus();
  }

  absl::Status SetPreferences(cublasLtMatmulPreferenceOpaque_t& preference,
                              const PlanKey& key) const {
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      return BlasStatus(
          device_, "cublasLtMatmulPreferenceSetAttribute",
          cublasLtMatmulPreferenceSetAttribute(&preference, which, &value, sizeof(value)));
    };
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes));
    // Parts of a sum never meet in an order of their own (in place), nor rounded to 16 bits (in the
    // output's type).
    const std::uint32_t reductions =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions));
    const auto alignment = [](const PlanKey::Operand& operand) {
      return static_cast<std::uint32_t>(operand.alignment_bytes);
    };
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(key.b)));
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(key.a)));
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(key.out)));
    return set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(key.out));
  }

  absl::Status NoAlgorithm(const PlanKey& key) const {
    const auto text = [](const PlanKey::Operand& operand) {
      return absl::StrCat(Name(operand.dtype), " [", operand.rows, ", ", operand.columns,
                          "], rows ", operand.row_stride, " apart, aligned to ",
                          operand.alignment_bytes, " bytes");
    };
    return absl::UnavailableError(
        absl::StrCat("matmul: cuBLASLt has no algorithm on ", device_.ToString(), " where a is ",
                     text(key.a), key.transpose_a ? ", transposed" : "", "; b is ", text(key.b),
                     key.transpose_b ? ", transposed" : "", "; out is ", text(key.out)));
  }

  const Device device_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::unordered_map<PlanKey, Plan, PlanKeyHash> plans_;
};

absl::StatusOr<std::shared_ptr<MatMulPlans>> MakeMatMulPlans(Device device) {
  auto plans = std::make_shared<MatMulPlans>(device);
  LOCKSTEP_RETURN_IF_ERROR(plans->Create());
  return plans;
}

absl::Status MatMul(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                    MatMulOptions options) {
  return worker.state()->matmul_plans->Run(StreamOf(worker), a, b, out, options);
}

}  // namespace lockstep::internal::cuda
