#include "lockstep/tests/harness/replica_check.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "lockstep/collective/agreement.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep::testing {
namespace {

std::int64_t HashOf(absl::string_view bytes) {
  return static_cast<std::int64_t>(absl::Hash<absl::string_view>()(bytes));
}

// Every rank's number, in rank order.
absl::StatusOr<std::vector<std::int64_t>> Gather(Worker& worker, Communicator& comm,
                                                 std::int64_t mine) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(comm.world_size()));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor in, worker.Empty({1}, DType::kInt64));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor out, worker.Empty({comm.world_size()}, DType::kInt64));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, Tensor::View(&mine, {1}, DType::kInt64), in));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(in, out));
  LOCKSTEP_RETURN_IF_ERROR(
      Copy(worker, out, Tensor::View(all.data(), {comm.world_size()}, DType::kInt64)));
  return all;
}

// "ranks 0, 2 agree; rank 1 differs from them".
std::string WhoAgrees(const std::vector<std::int64_t>& numbers) {
  std::vector<int> with_first;
  std::vector<int> others;
  for (std::size_t rank = 0; rank < numbers.size(); ++rank) {
    (numbers[rank] == numbers[0] ? with_first : others).push_back(static_cast<int>(rank));
  }
  return absl::StrCat(internal::RankList(others), " not as ", internal::RankList(with_first));
}

bool AllEqual(const std::vector<std::int64_t>& numbers) {
  return std::all_of(numbers.begin(), numbers.end(),
                     [&](std::int64_t number) { return number == numbers[0]; });
}

}  // namespace

absl::Status ReplicaCheck::Note(absl::string_view operation, const Tensor& tensor) {
  std::vector<char> bytes(static_cast<std::size_t>(tensor.size_bytes()));
  Tensor contiguous = tensor;
  if (!tensor.is_contiguous()) {
    LOCKSTEP_ASSIGN_OR_RETURN(contiguous, worker_.Empty(tensor.shape(), tensor.dtype()));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker_, tensor, contiguous));
  }
  LOCKSTEP_RETURN_IF_ERROR(
      Copy(worker_, contiguous, Tensor::View(bytes.data(), tensor.shape(), tensor.dtype())));
  const std::string shown = absl::StrCat(Name(tensor.dtype()), " ", ToString(tensor.shape()));
  records_.push_back({std::string(operation), shown, HashOf(absl::StrCat(operation, " ", shown)),
                      HashOf({bytes.data(), bytes.size()})});
  return absl::OkStatus();
}

absl::Status ReplicaCheck::Compare(Communicator& comm) const {
  LOCKSTEP_ASSIGN_OR_RETURN(const auto counts,
                            Gather(worker_, comm, static_cast<std::int64_t>(records_.size())));
  const std::int64_t common = *std::min_element(counts.begin(), counts.end());
  for (std::int64_t i = 0; i < common; ++i) {
    const Record& record = records_[static_cast<std::size_t>(i)];
    LOCKSTEP_ASSIGN_OR_RETURN(const auto names, Gather(worker_, comm, record.name_hash));
    if (!AllEqual(names)) {
      return absl::InternalError(absl::StrCat(
          "replicas: record ", i + 1, " is of \"", record.operation, "\" (", record.tensor,
          ") on rank ", comm.rank(), ", but of another operation on others: ", WhoAgrees(names)));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const auto bits, Gather(worker_, comm, record.bits_hash));
    if (AllEqual(bits)) continue;
    return absl::InternalError(absl::StrCat("replicas differ after \"", record.operation, "\" (",
                                            record.tensor, ", record ", i + 1,
                                            "): ", WhoAgrees(bits)));
  }
  if (AllEqual(counts)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("replicas: the ranks noted different numbers of ",
                                          "operations, and the first ", common,
                                          " agree: ", WhoAgrees(counts)));
}

}  // namespace lockstep::testing
