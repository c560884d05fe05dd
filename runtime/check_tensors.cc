#include "lockstep/runtime/check_tensors.h"

namespace lockstep::internal {

absl::Status RefuseTensor(absl::string_view what, absl::string_view name, const Tensor& tensor,
                          absl::string_view right) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", name, " is ", tensor.ToString(), "; ", right));
}

absl::Status CheckMemory(absl::string_view what, absl::string_view name, const Tensor& tensor) {
  const absl::Status shape = ContiguousBytes(tensor.shape(), tensor.dtype()).status();
  if (!shape.ok()) return RefuseTensor(what, name, tensor, shape.message());
  if (tensor.size() == 0 || tensor.raw_data() != nullptr) return absl::OkStatus();
  return RefuseTensor(what, name, tensor, "it must have memory, and its pointer is null");
}

absl::Status CheckFloating(Worker& worker, absl::string_view what, absl::string_view name,
                           const Tensor& tensor) {
  if (!IsFloating(tensor.dtype()))
    return RefuseTensor(what, name, tensor, "it must be of a floating type");
  if (tensor.device() != worker.device()) {
    return RefuseTensor(what, name, tensor,
                        absl::StrCat("it must be on ", worker.device().ToString()));
  }
  const bool rows =
      tensor.num_axes() == 0 || tensor.extent(-1) <= 1 || tensor.strides().back() == 1;
  return rows ? CheckMemory(what, name, tensor)
              : RefuseTensor(what, name, tensor, "its last axis must have stride 1");
}

absl::Status CheckAlike(absl::string_view what, absl::string_view name_a, const Tensor& a,
                        absl::string_view name_b, const Tensor& b, bool any_dtype) {
  if (a.shape() == b.shape() && (any_dtype || a.dtype() == b.dtype())) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", name_a, " is ", a.ToString(), " and ", name_b, " is ", b.ToString(),
                   "; they must have one shape", any_dtype ? "" : " and one type"));
}

}  // namespace lockstep::internal
