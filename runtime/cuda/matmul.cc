#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "absl/hash/hash.h"
#include "lockstep/runtime/cuda/blas.h"
#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/math.h"
#include "lockstep/runtime/cuda/matmul_key.h"
#include "lockstep/runtime/cuda/worker.h"
#include "lockstep/runtime/matmul.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
// Of a bias that the library adds: it may read 16 bytes at a time, and a kernel chosen for less has
// been seen to fault (pytorch/pytorch#194497).
constexpr std::uintptr_t kBiasAlignmentBytes = 16;

absl::Status BlasStatus(const Blas& blas, Device device, absl::string_view call,
                        cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, " on ", device.ToString(), ": ", blas.status_name(status), " (",
                   blas.status_string(status), ")");
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

cublasComputeType_t ComputeTypeOf(const PlanKey& key) {
  if (key.a.dtype == DType::kFloat64) return CUBLAS_COMPUTE_64F;
  return key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

PlanKey DescribeProduct(const Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                        MatMulOptions options) {
  return {.a = DescribeOperand(a),
          .b = DescribeOperand(b),
          .out = DescribeOperand(out),
          .transpose_a = options.transpose_a,
          .transpose_b = options.transpose_b,
          .accumulate = options.accumulate,
          .bias = options.bias != nullptr,
          .tf32 = worker.allow_tf32() && a.dtype() == DType::kFloat32,
          .batch_invariant = options.batch_invariant,
          .max_multiprocessors = options.max_multiprocessors};
}

cublasStatus_t Destroy(cublasLtHandle_t handle) { return (*GetBlas())->destroy(handle); }
using BlasHandle = Handle<cublasLtHandle_t, Destroy>;

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
  MatMulPlans(const Blas& blas, BlasHandle handle)
      : blas_(blas), device_(handle.device()), handle_(std::move(handle)) {}

  /// Null for a product whose bias the library has no algorithm to add.
  absl::StatusOr<Plan*> Find(const PlanKey& key) {
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      const DeviceGuard guard(device_);
      LOCKSTEP_ASSIGN_OR_RETURN(const std::optional<Plan> plan, MakePlan(key));
      found = plans_.emplace(key, plan).first;
    }
    return found->second.has_value() ? &*found->second : nullptr;
  }

  absl::Status Run(Worker& worker, Plan& plan, const Tensor& a, const Tensor& b, const Tensor& out,
                   MatMulOptions options) {
    LOCKSTEP_RETURN_IF_ERROR(MakeWorkspace(worker, plan));
    const DeviceGuard guard(device_);
    if (options.bias != nullptr) {
      LOCKSTEP_RETURN_IF_ERROR(
          Set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, options.bias->raw_data()));
    }
    const bool wide = a.dtype() == DType::kFloat64;
    const double scales[] = {1, options.accumulate ? 1.0 : 0.0};
    const float narrow_scales[] = {1, options.accumulate ? 1.0f : 0.0f};
    const void* const alpha = wide ? static_cast<const void*>(&scales[0]) : &narrow_scales[0];
    const void* const beta = wide ? static_cast<const void*>(&scales[1]) : &narrow_scales[1];
    // b comes first: see MakePlan.
    return Check(
        "cublasLtMatmul",
        blas_.matmul(handle_.get(), &plan.product, alpha, b.raw_data(), &plan.b, a.raw_data(),
                     &plan.a, beta, out.raw_data(), &plan.out, out.raw_data(), &plan.out,
                     &plan.algorithm, workspace_.get(), plan.workspace_bytes, StreamOf(worker)));
  }

 private:
  absl::Status Check(absl::string_view call, cublasStatus_t status) const {
    return BlasStatus(blas_, device_, call, status);
  }

  // Made for the first product that needs one: many workers never ask for any. From the worker's
  // pool, which waits for nobody.
  absl::Status MakeWorkspace(Worker& worker, const Plan& plan) {
    if (plan.workspace_bytes == 0 || workspace_ != nullptr) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(workspace_, worker.memory().Allocate(kWorkspaceBytes));
    return absl::OkStatus();
  }

  // The library counts columns first. A row-major matrix is its own transpose there, and
  // out^T = op(b)^T op(a)^T: so b is its first operand, and nothing is moved.
  absl::StatusOr<std::optional<Plan>> MakePlan(const PlanKey& key) const {
    Plan plan;
    LOCKSTEP_RETURN_IF_ERROR(
        Check("cublasLtMatmulDescInit",
              blas_.desc_init(&plan.product, sizeof(plan.product), ComputeTypeOf(key),
                              key.a.dtype == DType::kFloat64 ? CUDA_R_64F : CUDA_R_32F)));
    const auto operation = [](bool transpose) -> std::int32_t {
      return transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    };
    LOCKSTEP_RETURN_IF_ERROR(Set(plan, CUBLASLT_MATMUL_DESC_TRANSA, operation(key.transpose_b)));
    LOCKSTEP_RETURN_IF_ERROR(Set(plan, CUBLASLT_MATMUL_DESC_TRANSB, operation(key.transpose_a)));
    if (key.bias) LOCKSTEP_RETURN_IF_ERROR(AddBiasTo(plan, key.out.dtype));
    if (key.max_multiprocessors > 0) {
      const std::int32_t target = key.max_multiprocessors;
      LOCKSTEP_RETURN_IF_ERROR(Set(plan, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, target));
    }
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.a, key.a));
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.b, key.b));
    LOCKSTEP_RETURN_IF_ERROR(SetLayout(plan.out, key.out));
    cublasLtMatmulPreferenceOpaque_t preference;
    LOCKSTEP_RETURN_IF_ERROR(Check("cublasLtMatmulPreferenceInit",
                                   blas_.preference_init(&preference, sizeof(preference))));
    LOCKSTEP_RETURN_IF_ERROR(SetPreferences(preference, key));
    cublasLtMatmulHeuristicResult_t best;
    int count = 0;
    const cublasStatus_t status =
        blas_.algo_get_heuristic(handle_.get(), &plan.product, &plan.b, &plan.a, &plan.out,
                                 &plan.out, &preference, 1, &best, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0)) {
      if (key.bias) return std::nullopt;
      return NoAlgorithm(key);
    }
    LOCKSTEP_RETURN_IF_ERROR(Check("cublasLtMatmulAlgoGetHeuristic", status));
    plan.algorithm = best.algo;
    plan.workspace_bytes = best.workspaceSize;
    return plan;
  }

  // Of what the library can do to a result on the way out, only this: its GELU is the tanh
  // approximation, where Activation::kGelu is exact.
  absl::Status AddBiasTo(Plan& plan, DType dtype) const {
    const std::uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    LOCKSTEP_RETURN_IF_ERROR(Set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
    const std::int32_t type = CudaType(dtype);
    LOCKSTEP_RETURN_IF_ERROR(Set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type));
    // The search looks at the address for its alignment alone: this one has what every bias has.
    return Set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
               reinterpret_cast<const void*>(kBiasAlignmentBytes));
  }

  template <typename Value>
  absl::Status Set(Plan& plan, cublasLtMatmulDescAttributes_t which, const Value& value) const {
    return Check("cublasLtMatmulDescSetAttribute",
                 blas_.desc_set_attribute(&plan.product, which, &value, sizeof(value)));
  }

  absl::Status SetLayout(cublasLtMatrixLayoutOpaque_t& layout,
                         const PlanKey::Operand& operand) const {
    return Check("cublasLtMatrixLayoutInit",
                 blas_.layout_init(&layout, sizeof(layout), CudaType(operand.dtype),
                                   static_cast<std::uint64_t>(operand.columns),
                                   static_cast<std::uint64_t>(operand.rows), operand.row_stride));
  }

  absl::Status SetPreferences(cublasLtMatmulPreferenceOpaque_t& preference,
                              const PlanKey& key) const {
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      return Check("cublasLtMatmulPreferenceSetAttribute",
                   blas_.preference_set_attribute(&preference, which, &value, sizeof(value)));
    };
    LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes));
    // Parts of a sum never meet in an order of their own (in place), nor rounded to 16 bits (in the
    // output's type). With a bias there are no parts: their sum would be rounded before it is added
    // (seen with cuBLASLt 13.0 on an H100).
    const bool in_one_go = key.batch_invariant || (key.bias && IsReducedPrecision(key.out.dtype));
    const std::uint32_t reductions =
        in_one_go ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
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

  const Blas& blas_;
  const Device device_;
  const BlasHandle handle_;
  std::shared_ptr<void> workspace_;
  std::unordered_map<PlanKey, std::optional<Plan>, absl::Hash<PlanKey>> plans_;
};

absl::StatusOr<std::shared_ptr<MatMulPlans>> MakeMatMulPlans(Device device) {
  const absl::StatusOr<const Blas*> blas = GetBlas();
  if (!blas.ok()) return nullptr;
  const DeviceGuard guard(device);
  cublasLtHandle_t handle = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(BlasStatus(**blas, device, "cublasLtCreate", (*blas)->create(&handle)));
  return std::make_shared<MatMulPlans>(**blas, BlasHandle(device, handle));
}

namespace {

// Not float64, whose bits are the same if the bias comes after.
bool MayAddWithin(const Tensor& bias) {
  return bias.dtype() != DType::kFloat64 &&
         reinterpret_cast<std::uintptr_t>(bias.raw_data()) % kBiasAlignmentBytes == 0;
}

// A 16-bit result passes through float32 memory, or it would be rounded twice.
absl::Status MultiplyThenAddBias(Worker& worker, const Tensor& a, const Tensor& b,
                                 const Tensor& out, MatMulOptions options) {
  const Tensor bias = *options.bias;
  options.bias = nullptr;
  if (!IsReducedPrecision(out.dtype())) {
    LOCKSTEP_RETURN_IF_ERROR(cuda::MatMul(worker, a, b, out, options));
    return cuda::AddBias(worker, bias, out);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor wide_out, worker.Empty(out.shape(), DType::kFloat32));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor wide_bias, worker.Empty(bias.shape(), DType::kFloat32));
  LOCKSTEP_RETURN_IF_ERROR(cuda::MatMul(worker, a, b, wide_out, options));
  LOCKSTEP_RETURN_IF_ERROR(cuda::Copy(worker, bias, wide_bias));
  LOCKSTEP_RETURN_IF_ERROR(cuda::AddBias(worker, wide_bias, wide_out));
  return cuda::Copy(worker, wide_out, out);
}

}  // namespace

absl::Status MatMul(Worker& worker, const Tensor& a, const Tensor& b, const Tensor& out,
                    MatMulOptions options) {
  if (options.bias == nullptr || MayAddWithin(*options.bias)) {
    MatMulPlans* const plans = worker.state()->matmul_plans.get();
    if (plans == nullptr) return GetBlas().status();
    LOCKSTEP_ASSIGN_OR_RETURN(Plan* const plan,
                              plans->Find(DescribeProduct(worker, a, b, out, options)));
    if (plan != nullptr) return plans->Run(worker, *plan, a, b, out, options);
  }
  return MultiplyThenAddBias(worker, a, b, out, options);
}

}  // namespace lockstep::internal::cuda
