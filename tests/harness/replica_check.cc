#include "lockstep/tests/harness/replica_check.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "lockstep/collective/agreement.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/exchange.h"

namespace lockstep::testing {
namespace {

using Numbers = std::vector<std::vector<std::int64_t>>;

std::int64_t HashOf(absl::string_view bytes) {
  return static_cast<std::int64_t>(absl::Hash<absl::string_view>()(bytes));
}

bool AllEqual(const Numbers& numbers, std::size_t at) {
  return std::all_of(numbers.begin(), numbers.end(),
                     [&](const auto& rank) { return rank[at] == numbers[0][at]; });
}

// "rank 1 not as ranks 0, 2": those who agree stand together.
std::string WhoAgrees(const Numbers& numbers, std::size_t at) {
  std::vector<std::int64_t> seen;
  std::vector<std::vector<int>> groups;
  for (std::size_t rank = 0; rank < numbers.size(); ++rank) {
    const auto found = std::find(seen.begin(), seen.end(), numbers[rank][at]);
    const auto group = static_cast<std::size_t>(found - seen.begin());
    if (found == seen.end()) {
      seen.push_back(numbers[rank][at]);
      groups.emplace_back();
    }
    groups[group].push_back(static_cast<int>(rank));
  }
  std::string text;
  for (std::size_t group = 1; group < groups.size(); ++group) {
    absl::StrAppend(&text, group == 1 ? "" : "; ", internal::RankList(groups[group]));
    for (std::size_t other = 0; other < group; ++other) {
      absl::StrAppend(&text, other == 0 ? " not as " : ", nor as ",
                      internal::RankList(groups[other]));
    }
  }
  return text;
}

}  // namespace

absl::Status ReplicaCheck::Note(absl::string_view operation, const Tensor& tensor) {
  const absl::StatusOr<Tensor> host = ToHost(worker_, tensor);
  if (!host.ok()) {
    return absl::Status(host.status().code(),
                        absl::StrCat("replicas: \"", operation, "\": ", host.status().message()));
  }
  const absl::string_view bytes(static_cast<const char*>(host->raw_data()),
                                static_cast<std::size_t>(host->size_bytes()));
  const std::string shown = absl::StrCat(Name(tensor.dtype()), " ", ToString(tensor.shape()));
  records_.push_back(
      {std::string(operation), shown, HashOf(absl::StrCat(operation, " ", shown)), HashOf(bytes)});
  return absl::OkStatus();
}

absl::Status ReplicaCheck::Compare(Communicator& comm) const {
  LOCKSTEP_ASSIGN_OR_RETURN(
      const Numbers counts,
      Exchange(worker_, comm, absl::OkStatus(), {static_cast<std::int64_t>(records_.size())}));
  const std::size_t common =
      static_cast<std::size_t>((*std::min_element(counts.begin(), counts.end()))[0]);
  // Of each record its name, then its bits.
  std::vector<std::int64_t> mine;
  for (std::size_t i = 0; i < common; ++i) {
    mine.push_back(records_[i].name_hash);
    mine.push_back(records_[i].bits_hash);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Numbers hashes, Exchange(worker_, comm, absl::OkStatus(), mine));
  for (std::size_t i = 0; i < common; ++i) {
    const Record& record = records_[i];
    if (!AllEqual(hashes, 2 * i)) {
      return absl::InternalError(
          absl::StrCat("replicas: record ", i + 1, " is of \"", record.operation, "\" (",
                       record.tensor, ") on rank ", comm.rank(),
                       ", but of another operation on others: ", WhoAgrees(hashes, 2 * i)));
    }
    if (AllEqual(hashes, 2 * i + 1)) continue;
    return absl::InternalError(absl::StrCat("replicas differ after \"", record.operation, "\" (",
                                            record.tensor, ", record ", i + 1,
                                            "): ", WhoAgrees(hashes, 2 * i + 1)));
  }
  if (AllEqual(counts, 0)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("replicas: the ranks noted different numbers of ",
                                          "operations, and the first ", common,
                                          " agree: ", WhoAgrees(counts, 0)));
}

}  // namespace lockstep::testing
