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

absl::StatusOr<Blas> OpenBlas() {
  const std::string name = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  // By name it is the one that the host has loaded already, if it has.
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    library =
        dlopen(absl::StrCat(LOCKSTEP_CUDA_LIBRARIES, "/", name).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("matrix products on GPUs need ", name,
                     ", a part of CUDA, which neither the loader nor " LOCKSTEP_CUDA_LIBRARIES
                     " has; name its folder in LD_LIBRARY_PATH"));
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
      absl::StrCat("matrix products on GPUs: ", name, " lacks a function: ", dlerror()));
}

}  // namespace

absl::StatusOr<const Blas*> GetBlas() {
  // Never destroyed: workers may end after main.
  static const absl::StatusOr<Blas>& blas = *new absl::StatusOr<Blas>(OpenBlas());
  if (!blas.ok()) return blas.status();
  return &*blas;
}

}  // namespace lockstep::internal::cuda
