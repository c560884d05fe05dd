#include "lockstep/collective/cuda/residency.h"

#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "lockstep/tests/catch.h"

namespace lockstep::internal::cuda {
namespace {

using testing::Says;

// Stream `index` of a GPU; streams have addresses.
Lane LaneOf(int gpu, int index, int multiprocessors = 132) {
  return {gpu, multiprocessors, reinterpret_cast<const void*>(static_cast<std::uintptr_t>(index))};
}
std::vector<Lane> OnAll(int num_gpus, int index) {
  std::vector<Lane> lanes;
  for (int gpu = 0; gpu < num_gpus; ++gpu) lanes.push_back(LaneOf(gpu, index));
  return lanes;
}
int Taken(ResidencyLedger& ledger, std::vector<Lane> lanes, int wanted = 132) {
  const auto taken = ledger.Take(lanes, wanted);
  REQUIRE(taken.status().ok());
  return *taken;
}

TEST_CASE("eight groups find room at once for blocks that wait, and a ninth is told why not") {
  ResidencyLedger ledger(8);
  int sum = 0;
  for (int group = 1; group <= 8; ++group) {
    const int blocks = Taken(ledger, OnAll(2, group));
    CHECK(blocks >= ResidencyLedger::kReserved);
    CHECK(blocks <= ResidencyLedger::kMaxBlocks);
    CHECK((group > 2 || blocks == ResidencyLedger::kMaxBlocks));
    sum += blocks;
  }
  CHECK(sum <= 132);
  CHECK(sum >= 120);
  CHECK(ledger.num_lanes(1) == 8);
  const auto ninth = ledger.Take(OnAll(2, 9), 132).status();
  CHECK(ninth.code() == absl::StatusCode::kResourceExhausted);
  CHECK(Says(ninth, "on cuda:0 groups wait for their peers on 8 streams, and this one would on 1"));
  CHECK(Says(ninth, "CUDA_DEVICE_MAX_CONNECTIONS"));
  // What is refused takes nothing, and what is given back can be had again.
  CHECK(ledger.num_lanes(0) == 8);
  ledger.GiveBack(OnAll(2, 1));
  CHECK(Taken(ledger, OnAll(2, 9)) == ResidencyLedger::kMaxBlocks);
}

TEST_CASE("ranks that share a GPU find room for all their blocks at once") {
  for (const int ranks : {2, 3, 4, 7, 8}) {
    ResidencyLedger ledger(8);
    std::vector<Lane> lanes;
    for (int rank = 0; rank < ranks; ++rank) lanes.push_back(LaneOf(0, rank));
    const int blocks = Taken(ledger, lanes);
    INFO(ranks << " ranks: " << blocks);
    CHECK(blocks * ranks <= 132);
    CHECK(blocks >= 8);
    CHECK(!ledger.AreAlone(lanes, {}));
  }
  // All of a group's ranks must find a lane.
  ResidencyLedger ledger(3);
  Taken(ledger, {LaneOf(0, 1), LaneOf(0, 2)});
  const auto refused = ledger.Take({{LaneOf(0, 3), LaneOf(0, 4)}}, 132).status();
  CHECK(Says(refused, "on 2 streams, and this one would on 2 more"));
}

TEST_CASE("a group has the least limit of its streams, and shares those that others have") {
  ResidencyLedger ledger(8);
  const auto all = OnAll(4, 1);
  CHECK(Taken(ledger, all, 7) == 7);
  CHECK(Taken(ledger, {all[0], all[1]}) == 7);
  CHECK(Taken(ledger, {all[2], all[3]}, 5) == 5);
  CHECK(ledger.num_lanes(0) == 1);
  CHECK(Taken(ledger, {LaneOf(0, 2), LaneOf(1, 1)}) == 7);
  // The last owner gives a lane back.
  ledger.GiveBack(all);
  CHECK(ledger.num_lanes(0) == 2);
  CHECK(ledger.num_lanes(3) == 1);
  ledger.GiveBack({{all[2], all[3]}});
  CHECK(ledger.num_lanes(3) == 0);
}

TEST_CASE("a group is alone where all streams on which others wait are its own") {
  ResidencyLedger ledger(8);
  const auto first = OnAll(3, 1);
  Taken(ledger, first);
  CHECK(ledger.AreAlone(first, {}));
  Taken(ledger, OnAll(3, 2));
  CHECK(!ledger.AreAlone(first, {}));
  CHECK(ledger.AreAlone(first, OnAll(3, 2)));
  // Another on one GPU of three is company.
  Taken(ledger, {LaneOf(2, 3), LaneOf(5, 3)});
  CHECK(!ledger.AreAlone(first, OnAll(3, 2)));
  CHECK(ledger.AreAlone({{first[0], first[1]}}, OnAll(2, 2)));
  ledger.GiveBack({{LaneOf(2, 3), LaneOf(5, 3)}});
  CHECK(ledger.AreAlone(first, OnAll(3, 2)));
  // So is a second group on its streams, which does not keep its order with what is on the sides.
  const auto split = OnAll(2, 1);
  Taken(ledger, split);
  CHECK(!ledger.AreAlone(first, OnAll(3, 2)));
  ledger.GiveBack(OnAll(3, 2));
  CHECK(ledger.AreAlone(first, {}));
  CHECK(ledger.AreAlone(split, {}));
}

TEST_CASE("small GPUs are shared out too, and refuse when no multiprocessor is left") {
  for (const int multiprocessors : {1, 2, 4, 9, 20, 48, 108, 144}) {
    INFO(multiprocessors << " multiprocessors");
    ResidencyLedger ledger(32);
    int sum = 0;
    int groups = 0;
    absl::Status refused;
    for (int group = 1; group <= 40 && refused.ok(); ++group) {
      const std::vector<Lane> lanes = {LaneOf(0, group, multiprocessors),
                                       LaneOf(1, group, multiprocessors)};
      const auto taken = ledger.Take(lanes, 132);
      refused = taken.status();
      if (!taken.ok()) continue;
      groups += 1;
      sum += *taken;
    }
    CHECK(sum <= multiprocessors);
    CHECK(groups == std::min(8, multiprocessors));
    CHECK(refused.code() == absl::StatusCode::kResourceExhausted);
    CHECK(Says(refused, "groups with fewer push_blocks hold fewer"));
  }
}

TEST_CASE("groups of this process know of each other while they live") {
  const auto on = [](int gpu, int stream) {
    return std::vector<Lane>{LaneOf(gpu, stream), LaneOf(gpu + 1, stream)};
  };
  const auto first = Residency::Take(on(100, 1), 132);
  REQUIRE_OK(first);
  CHECK((*first)->is_alone());
  CHECK((*first)->max_blocks() == ResidencyLedger::kMaxBlocks);
  REQUIRE_OK((*first)->TakeSides(on(100, 2)));
  CHECK((*first)->max_blocks_aside() == ResidencyLedger::kMaxBlocks);
  CHECK((*first)->is_alone());
  {
    const auto second = Residency::Take(on(101, 3), 5);
    REQUIRE_OK(second);
    CHECK((*second)->max_blocks() == 5);
    CHECK(!(*first)->is_alone());
    CHECK(!(*second)->is_alone());
    CHECK(Residency::NumLanes(101) == 3);
    CHECK(Residency::Take(on(100, 4), 0).status().code() == absl::StatusCode::kResourceExhausted);
    // Sides hold no more than their group can use.
    CHECK(Residency::NumLanes(101) == 3);
    REQUIRE_OK((*second)->TakeSides(on(101, 5)));
    CHECK((*second)->max_blocks_aside() == 5);
    CHECK(Residency::NumLanes(101) == 4);
  }
  CHECK((*first)->is_alone());
  CHECK(Residency::NumLanes(102) == 0);
}

// GPUs on which groups run one kernel behind the other. A block holds a multiprocessor from its
// start until it and the blocks of its number on the group's other GPUs have all been there at
// once; the blocks of a kernel start in the order of their numbers. Which of those that can start
// does so is drawn by chance.
class Machine {
 public:
  struct Group {
    std::vector<int> gpus;
    int blocks;       // of each kernel
    bool overlaps;    // the next kernel may begin when all blocks of one have
    int kernels = 3;  // to run
  };

  Machine(int num_gpus, int multiprocessors, std::vector<Group> groups, unsigned seed)
      : free_(static_cast<std::size_t>(num_gpus), multiprocessors),
        favours_(seed % 2 == 0),
        random_(seed) {
    for (const Group& group : groups) {
      Running running{group, {}};
      running.on.resize(group.gpus.size());
      running_.push_back(running);
    }
  }

  // Whether all come to an end.
  bool RunsToTheEnd() {
    while (Step()) {
    }
    return std::all_of(running_.begin(), running_.end(),
                       [](const Running& group) { return group.kernels_done == group.is.kernels; });
  }

 private:
  struct Running {
    Group is;
    // On each of its GPUs, how many blocks of all kernels have started.
    std::vector<int> on;
    std::vector<bool> done = {};  // blocks of the kernel that runs
    int kernels_done = 0;
  };

  bool CanStart(const Running& group, std::size_t where) const {
    if (free_[group.is.gpus[where]] == 0) return false;
    const int begin = group.kernels_done * group.is.blocks;
    const int end = std::min(group.kernels_done + 1, group.is.kernels) * group.is.blocks;
    if (group.on[where] < end) return true;
    const bool next = group.is.overlaps && group.kernels_done + 1 < group.is.kernels;
    return next && group.on[where] < begin + 2 * group.is.blocks;
  }

  bool Step() {
    std::vector<std::pair<Running*, std::size_t>> can;
    std::vector<std::pair<Running*, std::size_t>> favoured;
    for (Running& group : running_) {
      for (std::size_t where = 0; where < group.on.size(); ++where) {
        if (!CanStart(group, where)) continue;
        can.push_back({&group, where});
        const std::size_t gpu = group.is.gpus[where];
        if (&group == &running_[gpu % running_.size()]) favoured.push_back(can.back());
      }
    }
    // Every other machine starts on each GPU what another group than on the one before has there.
    if (favours_ && !favoured.empty()) can = favoured;
    const auto together = AllThere();
    if (can.empty() && together.empty()) return false;
    // Mostly starts: the fuller the GPUs, the harder.
    if (!can.empty() && (together.empty() || random_() % 8 != 0)) {
      const auto [group, where] = can[random_() % can.size()];
      group->on[where] += 1;
      free_[group->is.gpus[where]] -= 1;
    } else {
      const auto [group, block] = together[random_() % together.size()];
      End(*group, block);
    }
    return true;
  }

  // Blocks that are on all GPUs of their group.
  std::vector<std::pair<Running*, int>> AllThere() {
    std::vector<std::pair<Running*, int>> together;
    for (Running& group : running_) {
      if (group.kernels_done == group.is.kernels) continue;
      group.done.resize(group.is.blocks);
      const int here = *std::min_element(group.on.begin(), group.on.end()) -
                       group.kernels_done * group.is.blocks;
      for (int block = 0; block < std::min(here, group.is.blocks); ++block) {
        if (!group.done[block]) together.push_back({&group, block});
      }
    }
    return together;
  }

  void End(Running& group, int block) {
    group.done[block] = true;
    for (const int gpu : group.is.gpus) free_[gpu] += 1;
    if (std::find(group.done.begin(), group.done.end(), false) != group.done.end()) return;
    group.done.clear();
    group.kernels_done += 1;
  }

  std::vector<int> free_;
  const bool favours_;
  std::mt19937 random_;
  std::vector<Running> running_;
};

constexpr int kMultiprocessors = 20;

// Groups over chance GPUs of four, as a ledger lets them run; the first, if it has a GPU for each
// rank, may have been alone when it queued its work. Without a ledger, all fill the GPUs.
std::vector<Machine::Group> DrawGroups(std::mt19937& random, bool with_ledger) {
  ResidencyLedger ledger(6);
  std::vector<Machine::Group> groups;
  for (int index = 1; index <= 6; ++index) {
    std::vector<int> gpus = {0, 1, 2, 3};
    std::shuffle(gpus.begin(), gpus.end(), random);
    gpus.resize(2 + random() % 3);
    if (random() % 4 == 0) gpus = {gpus[0], gpus[0], gpus[1], gpus[1]};
    std::vector<Lane> lanes;
    for (const int gpu : gpus) {
      lanes.push_back(LaneOf(gpu, index * 10 + static_cast<int>(lanes.size()), kMultiprocessors));
    }
    const bool overlaps = random() % 2 == 0;
    int blocks = kMultiprocessors + 10;
    if (with_ledger) {
      const auto taken = ledger.Take(lanes, 8);
      if (!taken.ok()) continue;
      const bool was_alone = ledger.AreAlone(lanes, {}) && groups.empty() && random() % 2 == 0;
      // As LaunchShape decides: half the room for each of two that overlap.
      if (!was_alone) blocks = overlaps ? *taken / 2 : *taken;
    }
    if (blocks == 0) continue;
    blocks -= static_cast<int>(random() % static_cast<unsigned>(blocks));
    groups.push_back({gpus, blocks, overlaps});
  }
  return groups;
}

TEST_CASE("groups come to an end together, whatever starts first, and would not without limits") {
  std::mt19937 random(1);
  int max_groups = 0;
  int filled = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    INFO("seed " << seed);
    const auto groups = DrawGroups(random, /*with_ledger=*/true);
    max_groups = std::max(max_groups, static_cast<int>(groups.size()));
    filled += !groups.empty() && groups[0].blocks > kMultiprocessors ? 1 : 0;
    REQUIRE(Machine(4, kMultiprocessors, groups, seed).RunsToTheEnd());
  }
  CHECK(max_groups >= 5);
  CHECK(filled > 100);
  int stuck = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    const auto groups = DrawGroups(random, /*with_ledger=*/false);
    stuck += Machine(4, kMultiprocessors, groups, seed).RunsToTheEnd() ? 0 : 1;
  }
  CHECK(stuck > 30);
}

TEST_CASE("two groups that both fill two GPUs stop each other, and one with a limit does not") {
  const Machine::Group fills = {{0, 1}, 30, true};
  int stuck = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    stuck += Machine(2, kMultiprocessors, {fills, fills}, seed).RunsToTheEnd() ? 0 : 1;
    REQUIRE(Machine(2, kMultiprocessors, {fills, {{0, 1}, kMultiprocessors - 1, false}}, seed)
                .RunsToTheEnd());
  }
  CHECK(stuck > 30);
}

}  // namespace
}  // namespace lockstep::internal::cuda
