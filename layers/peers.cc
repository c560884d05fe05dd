#include "lockstep/layers/peers.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "lockstep/collective/agreement.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep::internal {
namespace {

constexpr std::int64_t kWordBytes = sizeof(std::int64_t);
constexpr char kSeparator = '\0';

// Every rank's first `max_bytes` of text behind the length of all of it, one row of words a rank.
absl::StatusOr<std::vector<std::int64_t>> GatherWords(Worker& worker, Communicator& comm,
                                                      absl::string_view text,
                                                      std::int64_t max_bytes) {
  const std::int64_t width = 1 + (max_bytes + kWordBytes - 1) / kWordBytes;
  const std::int64_t world_size = comm.world_size();
  std::vector<std::int64_t> words(static_cast<std::size_t>(width * world_size), 0);
  const Tensor all = Tensor::View(words.data(), {world_size, width}, DType::kInt64);
  Tensor sent;
  Tensor received;
  LOCKSTEP_RETURN_IF_ERROR(Alone(comm, [&]() -> absl::Status {
    words[0] = static_cast<std::int64_t>(text.size());
    std::memcpy(words.data() + 1, text.data(),
                std::min(text.size(), static_cast<std::size_t>(max_bytes)));
    LOCKSTEP_ASSIGN_OR_RETURN(sent, worker.Empty({1, width}, DType::kInt64));
    LOCKSTEP_ASSIGN_OR_RETURN(received, worker.Empty({world_size, width}, DType::kInt64));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor mine, all.Slice(/*axis=*/0, 0, 1));
    return Copy(worker, mine, sent);
  }));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(sent, received));
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  LOCKSTEP_RETURN_IF_ERROR(Alone(comm, [&] { return Copy(worker, received, all); }));
  return words;
}

absl::StatusOr<std::vector<std::string>> GatherTexts(Worker& worker, Communicator& comm,
                                                     absl::string_view text) {
  // Enough for the layers; a parameter's name may need a second try.
  std::int64_t max_bytes = 31 * kWordBytes;
  for (;;) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<std::int64_t> words,
                              GatherWords(worker, comm, text, max_bytes));
    const std::size_t width = words.size() / static_cast<std::size_t>(comm.world_size());
    std::vector<std::string> texts;
    std::int64_t longest = 0;
    for (std::size_t at = 0; at < words.size(); at += width) {
      longest = std::max(longest, words[at]);
      texts.emplace_back(reinterpret_cast<const char*>(&words[at] + 1),
                         static_cast<std::size_t>(std::min(words[at], max_bytes)));
    }
    if (longest <= max_bytes) return texts;
    max_bytes = longest;
  }
}

// "ranks 0, 2: 7; rank 1: 8", or nothing where all are equal.
std::string Differences(absl::Span<const std::string> values) {
  std::vector<std::string> parts;
  for (std::size_t first = 0; first < values.size(); ++first) {
    std::vector<int> ranks;
    bool seen = false;
    for (std::size_t rank = 0; rank < values.size(); ++rank) {
      if (values[rank] != values[first]) continue;
      seen = seen || rank < first;
      ranks.push_back(static_cast<int>(rank));
    }
    if (!seen) parts.push_back(absl::StrCat(RankList(ranks), ": ", values[first]));
  }
  return parts.size() < 2 ? "" : absl::StrJoin(parts, "; ");
}

}  // namespace

absl::Status CompareAcrossRanks(Worker& worker, Communicator& comm, absl::string_view what,
                                std::initializer_list<SharedOption> options) {
  if (comm.world_size() == 1) return absl::OkStatus();
  std::string mine(what);
  for (const SharedOption& option : options) {
    absl::StrAppend(&mine, std::string(1, kSeparator), option.value);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<std::string> texts, GatherTexts(worker, comm, mine));
  if (std::all_of(texts.begin(), texts.end(), [&](const auto& text) { return text == texts[0]; })) {
    return absl::OkStatus();
  }
  // The values of what all ranks make, then of each option.
  std::vector<std::vector<std::string>> columns(options.size() + 1);
  for (const std::string& text : texts) {
    std::vector<std::string> fields = absl::StrSplit(text, kSeparator);
    fields.resize(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) columns[i].push_back(std::move(fields[i]));
  }
  if (const std::string kinds = Differences(columns[0]); !kinds.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the ranks make different things: ", kinds, "; they must all make the same"));
  }
  std::vector<std::string> differing;
  for (std::size_t i = 1; i < columns.size(); ++i) {
    const std::string values = Differences(columns[i]);
    if (!values.empty()) {
      differing.push_back(absl::StrCat((options.begin() + i - 1)->name, " (", values, ")"));
    }
  }
  return absl::FailedPreconditionError(absl::StrCat(what, ": the ranks differ in ",
                                                    absl::StrJoin(differing, " and "),
                                                    "; it must be the same on every rank"));
}

}  // namespace lockstep::internal
