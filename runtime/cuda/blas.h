// cuBLASLt, looked up when the first worker on a GPU is made: programs start where it is not
// installed, and those of CPU ranks never look for it.
#ifndef LOCKSTEP_RUNTIME_CUDA_BLAS_H_
#define LOCKSTEP_RUNTIME_CUDA_BLAS_H_

#include <cublasLt.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace lockstep::internal::cuda {

/// The library's functions that lockstep calls: Blas::matmul is cublasLtMatmul. What ends in
/// `_internal` there stands behind an inline function of its header, which gives it the size of the
/// first argument.
struct Blas {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetStatusName) status_name = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) algo_get_heuristic = nullptr;
  decltype(&cublasLtMatmulDescInit_internal) desc_init = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set_attribute = nullptr;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set_attribute = nullptr;
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init = nullptr;
};

/// Opens the first of `files` that the loader can open, for good. kUnavailable: none, and what it
/// said of each; or that one lacks a function.
absl::StatusOr<Blas> OpenBlas(absl::Span<const std::string> files);

/// Opened once: by its name, as the loader finds it, or else in the CUDA toolkit of the build.
absl::StatusOr<const Blas*> GetBlas();

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_BLAS_H_
