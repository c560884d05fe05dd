// cuBLASLt as it is found at run time. Needs the library, and no GPU.
#include "lockstep/runtime/cuda/blas.h"

#include <string>

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

TEST_CASE("cuBLASLt is found when the program runs, once, with all that is called of it") {
  const auto blas = internal::cuda::GetBlas();
  REQUIRE_OK(blas);
  CHECK(*internal::cuda::GetBlas() == *blas);
  CHECK(std::string((*blas)->status_name(CUBLAS_STATUS_NOT_SUPPORTED)) ==
        "CUBLAS_STATUS_NOT_SUPPORTED");
  cublasLtMatmulPreferenceOpaque_t preference;
  CHECK((*blas)->preference_init(&preference, sizeof(preference)) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("where cuBLASLt is not, or is another library, the error says what was tried") {
  using testing::Says;
  const auto nowhere = internal::cuda::OpenBlas({"no/such/library.so", "libnone.so.7"});
  CHECK(absl::IsUnavailable(nowhere.status()));
  CHECK(Says(nowhere.status(), "no/such/library.so"));
  CHECK(Says(nowhere.status(), "libnone.so.7"));
  const auto another = internal::cuda::OpenBlas({"libm.so.6"});
  CHECK(absl::IsUnavailable(another.status()));
  CHECK(Says(another.status(), "cublasLtCreate"));
}

}  // namespace
}  // namespace lockstep
