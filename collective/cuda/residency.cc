#include "lockstep/collective/cuda/residency.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lockstep::internal::cuda {
namespace {

// CUDA's own variable, which it reads when the process first uses a GPU.
int MaxConnections() {
  constexpr int kDefault = 8;
  const char* const set = std::getenv("CUDA_DEVICE_MAX_CONNECTIONS");
  int connections = 0;
  if (set == nullptr || !absl::SimpleAtoi(set, &connections)) return kDefault;
  return std::clamp(connections, 1, 32);
}

struct ProcessLedger {
  std::mutex mutex;
  ResidencyLedger ledger{MaxConnections()};
  std::set<Residency*> groups;
};

// Never destroyed: groups may outlive main.
ProcessLedger& TheLedger() {
  static ProcessLedger& ledger = *new ProcessLedger;
  return ledger;
}

int CountOn(int gpu, absl::Span<const Lane> lanes) {
  return static_cast<int>(
      std::count_if(lanes.begin(), lanes.end(), [&](const Lane& lane) { return lane.gpu == gpu; }));
}

}  // namespace

const ResidencyLedger::Entry* ResidencyLedger::Find(const Lane& lane) const {
  const auto found = entries_.find({lane.gpu, lane.stream});
  return found == entries_.end() ? nullptr : &found->second;
}

int ResidencyLedger::num_lanes(int gpu) const {
  return static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return entry.first.first == gpu;
  }));
}

bool ResidencyLedger::AreAlone(absl::Span<const Lane> lanes, absl::Span<const Lane> sides) const {
  return std::all_of(lanes.begin(), lanes.end(), [&](const Lane& lane) {
    const bool shares = !sides.empty() && Find(lane)->owners > 1;
    return !shares && num_lanes(lane.gpu) == 1 + CountOn(lane.gpu, sides);
  });
}

int ResidencyLedger::ShareOf(const Lane& lane, int num_new) const {
  int left = lane.multiprocessors;
  for (const auto& [key, entry] : entries_) {
    if (key.first == lane.gpu) left -= entry.limit;
  }
  // What each of the lanes that may still come is to find.
  const int expected = std::min({kExpectedLanes, max_lanes_, lane.multiprocessors});
  const int reserved = std::min(kReserved, lane.multiprocessors / expected);
  const int to_come = std::max(0, expected - num_lanes(lane.gpu) - num_new);
  const int spared = (left - reserved * to_come) / num_new;
  return std::min(kMaxBlocks, std::max(spared, std::min(reserved, left / num_new)));
}

absl::StatusOr<int> ResidencyLedger::Take(absl::Span<const Lane> lanes, int wanted) {
  std::vector<Lane> added;
  std::copy_if(lanes.begin(), lanes.end(), std::back_inserter(added),
               [&](const Lane& lane) { return Find(lane) == nullptr; });
  int limit = wanted;
  for (const Lane& lane : lanes) {
    if (const Entry* const entry = Find(lane)) {
      limit = std::min(limit, entry->limit);
      continue;
    }
    const int taken = num_lanes(lane.gpu);
    const int num_new = CountOn(lane.gpu, added);
    if (taken + num_new > max_lanes_) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "on cuda:", lane.gpu, " groups wait for their peers on ", taken,
          " streams, and this one would on ", num_new, " more; CUDA starts the work of ",
          max_lanes_, " at once (the environment variable CUDA_DEVICE_MAX_CONNECTIONS, up to 32)"));
    }
    limit = std::min(limit, ShareOf(lane, num_new));
    if (limit < 1) {
      return absl::ResourceExhaustedError(
          absl::StrCat("on cuda:", lane.gpu, " groups wait for their peers on ", taken,
                       " streams, and may hold all ", lane.multiprocessors,
                       " multiprocessors at once; groups with fewer push_blocks hold fewer"));
    }
  }
  auto entries = entries_;  // memory may run out between two of them
  for (const Lane& lane : lanes) {
    entries.try_emplace({lane.gpu, lane.stream}, Entry{.limit = limit}).first->second.owners += 1;
  }
  entries_.swap(entries);
  return limit;
}

void ResidencyLedger::GiveBack(absl::Span<const Lane> lanes) {
  for (const Lane& lane : lanes) {
    const auto entry = entries_.find({lane.gpu, lane.stream});
    LOCKSTEP_CHECK(entry != entries_.end());
    if (--entry->second.owners == 0) entries_.erase(entry);
  }
}

absl::StatusOr<std::unique_ptr<Residency>> Residency::Take(std::vector<Lane> lanes, int wanted) {
  auto& [mutex, ledger, groups] = TheLedger();
  std::unique_ptr<Residency> group(new Residency(std::move(lanes)));
  const std::scoped_lock lock(mutex);
  groups.insert(group.get());
  LOCKSTEP_ASSIGN_OR_RETURN(group->max_blocks_, ledger.Take(group->lanes_, wanted));
  UpdateAll();
  return group;
}

absl::Status Residency::TakeSides(std::vector<Lane> sides) {
  auto& [mutex, ledger, groups] = TheLedger();
  const std::scoped_lock lock(mutex);
  LOCKSTEP_CHECK(sides_.empty());
  LOCKSTEP_ASSIGN_OR_RETURN(max_blocks_aside_, ledger.Take(sides, max_blocks_));
  sides_ = std::move(sides);
  UpdateAll();
  return absl::OkStatus();
}

Residency::~Residency() {
  auto& [mutex, ledger, groups] = TheLedger();
  const std::scoped_lock lock(mutex);
  groups.erase(this);
  if (max_blocks_ == 0) return;  // was refused
  ledger.GiveBack(lanes_);
  ledger.GiveBack(sides_);
  UpdateAll();
}

int Residency::NumLanes(int gpu) {
  const std::scoped_lock lock(TheLedger().mutex);
  return TheLedger().ledger.num_lanes(gpu);
}

void Residency::UpdateAll() {
  for (Residency* const group : TheLedger().groups) {
    group->is_alone_.store(TheLedger().ledger.AreAlone(group->lanes_, group->sides_),
                           std::memory_order_relaxed);
  }
}

}  // namespace lockstep::internal::cuda
