#include "lockstep/collective/cuda/plan.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace lockstep::internal::cuda {
namespace {

bool Repeat(absl::Span<const Device> devices) {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (std::count(devices.begin(), devices.end(), devices[i]) > 1) return true;
  }
  return false;
}

}  // namespace

BestTransport ChooseBest(absl::Span<const Device> devices, const absl::Status& proof,
                         bool launches_block) {
  if (!proof.ok()) return {TransportKind::kStaged, std::string(proof.message())};
  if (devices.size() == 1) return {TransportKind::kPeer, "there is one rank"};
  const auto ordered = [](absl::string_view why) {
    return BestTransport{TransportKind::kOrdered, std::string(why)};
  };
  if (launches_block) {
    return ordered("CUDA_LAUNCH_BLOCKING is set, so no kernel may wait for another");
  }
  if (devices.size() > kMaxPeers) {
    return ordered(absl::StrCat(devices.size(), " ranks are more than the ", kMaxPeers,
                                " whose kernels wait for each other"));
  }
  if (Repeat(devices)) return ordered("ranks share a GPU, so no kernel may wait for another");
  return {TransportKind::kPeer, "every rank has a GPU that was proved to reach all others"};
}

int MaxBlocks(absl::Span<const CollectiveCall* const> calls, int room, int room_aside) {
  bool in_company = false;
  bool aside = false;
  int limit = std::numeric_limits<int>::max();
  for (const CollectiveCall* const call : calls) {
    in_company = in_company || call->in_company;
    aside = aside || call->aside;
    if (call->max_multiprocessors > 0) limit = std::min<int>(limit, call->max_multiprocessors);
  }
  return in_company ? std::min(limit, aside ? room_aside : room) : limit;
}

bool StandInPairs(absl::Span<const CollectiveCall* const> calls, int num_blocks) {
  bool asked = false;
  for (const CollectiveCall* const call : calls) {
    if (call->in_company) return false;
    asked = asked || call->max_multiprocessors == num_blocks;
  }
  return asked && num_blocks % 2 == 0;
}

AllReduceTuning FitInMemory(AllReduceTuning tuning, int world_size) {
  const int peers = std::max(1, world_size - 1);
  tuning.max_lines_bytes /= peers;
  tuning.push_tile_bytes = std::max<std::int64_t>(128, tuning.push_tile_bytes / peers / 128 * 128);
  return tuning;
}

}  // namespace lockstep::internal::cuda
