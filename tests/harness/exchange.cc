#include "lockstep/tests/harness/exchange.h"

#include <algorithm>
#include <cstring>

#include "lockstep/runtime/elementwise.h"

namespace lockstep::testing {
namespace {

constexpr std::size_t kMaxTextBytes = 1000;

// A rank's part of the exchange: its status code, the length of its text, the text, its numbers.
constexpr std::size_t kHeader = 2 + kMaxTextBytes / sizeof(std::int64_t);

std::vector<std::int64_t> Pack(const absl::Status& status, absl::Span<const std::int64_t> numbers) {
  std::vector<std::int64_t> packed(kHeader);
  const std::size_t length = std::min(status.message().size(), kMaxTextBytes);
  packed[0] = static_cast<std::int64_t>(status.code());
  packed[1] = static_cast<std::int64_t>(length);
  if (length > 0) std::memcpy(&packed[2], status.message().data(), length);
  packed.insert(packed.end(), numbers.begin(), numbers.end());
  return packed;
}

absl::Status StatusIn(const std::int64_t* packed) {
  return absl::Status(static_cast<absl::StatusCode>(packed[0]),
                      absl::string_view(reinterpret_cast<const char*>(packed + 2),
                                        static_cast<std::size_t>(packed[1])));
}

}  // namespace

absl::StatusOr<std::vector<std::vector<std::int64_t>>> Exchange(
    Worker& worker, Communicator& comm, const absl::Status& mine,
    absl::Span<const std::int64_t> numbers) {
  std::vector<std::int64_t> packed = Pack(mine, numbers);
  const auto part = static_cast<std::int64_t>(packed.size());
  const std::int64_t whole = part * comm.world_size();
  std::vector<std::int64_t> all(static_cast<std::size_t>(whole));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor in, worker.Empty({part}, DType::kInt64));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor out, worker.Empty({whole}, DType::kInt64));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, Tensor::View(packed.data(), {part}, DType::kInt64), in));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(in, out));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, out, Tensor::View(all.data(), {whole}, DType::kInt64)));
  std::vector<std::vector<std::int64_t>> every_rank;
  for (const std::int64_t* rank = all.data(); rank != all.data() + whole; rank += part) {
    LOCKSTEP_RETURN_IF_ERROR(StatusIn(rank));
    every_rank.emplace_back(rank + kHeader, rank + part);
  }
  return every_rank;
}

}  // namespace lockstep::testing
