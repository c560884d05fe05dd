#include "lockstep/runtime/cuda/blas.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace lockstep::internal::cuda {
namespace {

template <typename Function>
bool Look(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

absl::StatusOr<Blas> OpenBlas(absl::Span<const std::string> files) {
  void* library = nullptr;
  std::string reasons;
  for (const std::string& file : files) {
    library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    absl::StrAppend(&reasons, "; ", dlerror());
  }
  if (library == nullptr) {
    return absl::UnavailableError(absl::StrCat(
        "matrix products on GPUs need cuBLASLt, a part of CUDA, which cannot be opened "
        "(LD_LIBRARY_PATH may name its folder)",
        reasons));
  }
  Blas blas;
  const bool all =
      Look(library, "cublasLtCreate", blas.create) &&
      Look(library, "cublasLtDestroy", blas.destroy) &&
      Look(library, "cublasLtGetStatusName", blas.status_name) &&
      Look(library, "cublasLtGetStatusString", blas.status_string) &&
      Look(library, "cublasLtMatmul", blas.matmul) &&
      Look(library, "cublasLtMatmulAlgoGetHeuristic", blas.algo_get_heuristic) &&
      Look(library, "cublasLtMatmulDescInit_internal", blas.desc_init) &&
      Look(library, "cublasLtMatmulDescSetAttribute", blas.desc_set_attribute) &&
      Look(library, "cublasLtMatmulPreferenceInit_internal", blas.preference_init) &&
      Look(library, "cublasLtMatmulPreferenceSetAttribute", blas.preference_set_attribute) &&
      Look(library, "cublasLtMatrixLayoutInit_internal", blas.layout_init);
  if (all) return blas;
  return absl::UnavailableError(
      absl::StrCat("matrix products on GPUs: cuBLASLt lacks a function: ", dlerror()));
}

absl::StatusOr<const Blas*> GetBlas() {
  const auto open = [] {
    const std::string name = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
    // By name it is the one that the host has loaded already, if it has.
    return OpenBlas({name, absl::StrCat(LOCKSTEP_CUDA_LIBRARIES, "/", name)});
  };
  // Never destroyed: workers may end after main.
  static const absl::StatusOr<Blas>& blas = *new absl::StatusOr<Blas>(open());
  if (!blas.ok()) return blas.status();
  return &*blas;
}

}  // namespace lockstep::internal::cuda
