// Which core a rank gets.
#include "lockstep/runtime/pinning.h"

#include <sched.h>

#include <algorithm>
#include <set>

#ifdef LOCKSTEP_HAS_HWLOC
#include <hwloc.h>
#endif

#include "lockstep/runtime/executor.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep::internal {
namespace {

using testing::Expect;
using testing::RunInChild;

Cpus Range(int begin, int end) {
  Cpus cpus;
  for (int cpu = begin; cpu < end; ++cpu) cpus.push_back(cpu);
  return cpus;
}

std::vector<Cpus> SingleCpuCores(int count) {
  std::vector<Cpus> cores;
  for (int cpu = 0; cpu < count; ++cpu) cores.push_back({cpu});
  return cores;
}

Cpus Choose(const std::vector<Cpus>& cores, const Cpus& allowed, std::vector<Cpus> near,
            const Cpus& taken = {}) {
  return ChoosePlacement({.cores = cores, .allowed = allowed, .taken = taken, .near = near}).cpus;
}

TEST_CASE("ranks are spread evenly over the cores, each with one of its own") {
  const std::vector<Cpus> cores = SingleCpuCores(16);
  CHECK(Choose(cores, Range(0, 16), std::vector<Cpus>(2)) == Cpus{0, 8});
  CHECK(Choose(cores, Range(0, 16), std::vector<Cpus>(4)) == Cpus{0, 4, 8, 12});
  CHECK(Choose(cores, Range(0, 16), std::vector<Cpus>(5)) == Cpus{0, 3, 6, 9, 12});
  CHECK(Choose(cores, Range(0, 16), std::vector<Cpus>(16)) == Range(0, 16));
}

TEST_CASE("ranks stay inside the mask that the process has") {
  const std::vector<Cpus> cores = SingleCpuCores(16);
  CHECK(Choose(cores, {3, 7, 11}, std::vector<Cpus>(2)) == Cpus{3, 7});
  CHECK(Choose(cores, {3, 7, 11}, std::vector<Cpus>(3)) == Cpus{3, 7, 11});
}

TEST_CASE("hyper-threads of one core are not two cores") {
  const std::vector<Cpus> cores = {{0, 4}, {1, 5}, {2, 6}, {3, 7}};
  CHECK(Choose(cores, Range(0, 8), std::vector<Cpus>(4)) == Cpus{0, 1, 2, 3});
  CHECK(Choose(cores, Range(0, 8), std::vector<Cpus>(5)).empty());
  // One of the two may be forbidden.
  CHECK(Choose(cores, {4, 5, 6}, std::vector<Cpus>(3)) == Cpus{4, 5, 6});
  CHECK(Choose(cores, {0, 4, 5}, std::vector<Cpus>(2)) == Cpus{0, 5});
}

TEST_CASE("where there are fewer cores than ranks nobody is pinned, and the text says so") {
  const std::vector<Cpus> cores = SingleCpuCores(16);
  const Placement placement = ChoosePlacement(
      {.cores = cores, .allowed = {3, 7}, .taken = {}, .near = std::vector<Cpus>(3)});
  CHECK(placement.cpus.empty());
  CHECK(placement.text ==
        "not pinned: 3 ranks, and of the cores that this process may use 2 are free of other "
        "pinned threads");
  CHECK(ChoosePlacement({.cores = cores, .allowed = {3, 7}, .taken = {}, .near = {{}, {}}}).text ==
        "rank 0 on CPU 3, rank 1 on CPU 7");
}

TEST_CASE("cores on which other threads are bound are left to them, hyper-threads included") {
  const std::vector<Cpus> cores = {{0, 4}, {1, 5}, {2, 6}, {3, 7}};
  CHECK(Choose(cores, Range(0, 8), std::vector<Cpus>(2), {1, 4}) == Cpus{2, 3});
  CHECK(Choose(cores, Range(0, 8), std::vector<Cpus>(3), {1, 4}).empty());
}

TEST_CASE("ranks are near their devices, as far as the cores there reach") {
  const std::vector<Cpus> cores = SingleCpuCores(8);
  const Cpus low = Range(0, 4);
  const Cpus high = Range(4, 8);
  CHECK(Choose(cores, Range(0, 8), {high, high, low, low}) == Cpus{4, 6, 0, 2});
  // A third rank of two cores' device gets another core, and nobody loses his.
  CHECK(Choose(cores, {0, 1, 2, 4, 5}, {high, high, high, {}}) == Cpus{0, 4, 5, 1});
  // Who is near nothing in particular leaves the near ones to those who are.
  CHECK(Choose(cores, {0, 4, 5}, {{}, high, high}) == Cpus{0, 4, 5});
  // Forbidden CPUs are not near.
  CHECK(Choose(cores, {0, 1}, {high, high}) == Cpus{0, 1});
}

#ifdef LOCKSTEP_HAS_HWLOC
std::vector<Cpus> SyntheticCores(const char* description) {
  hwloc_topology_t topology = nullptr;
  REQUIRE(hwloc_topology_init(&topology) == 0);
  REQUIRE(hwloc_topology_set_synthetic(topology, description) == 0);
  REQUIRE(hwloc_topology_load(topology) == 0);
  std::vector<Cpus> cores = CoresOf(topology);
  hwloc_topology_destroy(topology);
  return cores;
}

TEST_CASE("machines with sockets, NUMA nodes and hyper-threads: ranks are spread over all of it") {
  // CPUs are numbered so that the second threads of all cores come last, as firmware does.
  const auto cores = SyntheticCores("pack:2 numa:2 core:4 pu:2(indexes=pu:core)");
  REQUIRE(cores.size() == 16);
  const Cpus all = Range(0, 32);
  for (const std::size_t world_size : {std::size_t{2}, std::size_t{4}, std::size_t{8}}) {
    const Cpus cpus = Choose(cores, all, std::vector<Cpus>(world_size));
    REQUIRE(cpus.size() == world_size);
    // As many ranks in each half of the machine, and never two on one core.
    std::set<std::size_t> used;
    std::size_t in_first_half = 0;
    for (const int cpu : cpus) {
      const auto core = static_cast<std::size_t>(
          std::find_if(
              cores.begin(), cores.end(),
              [cpu](const Cpus& of) { return std::find(of.begin(), of.end(), cpu) != of.end(); }) -
          cores.begin());
      used.insert(core);
      in_first_half += core < 8;
    }
    CHECK(used.size() == world_size);
    CHECK(in_first_half == world_size / 2);
  }
  CHECK(Choose(cores, all, std::vector<Cpus>(17)).empty());
  CHECK(SyntheticCores("pack:4 core:24 pu:1").size() == 96);
}
#endif

// The CPUs of each rank's thread.
absl::StatusOr<std::vector<Cpus>> RankCpus(Executor& executor) {
  std::vector<Cpus> cpus(static_cast<std::size_t>(executor.world_size()));
  LOCKSTEP_RETURN_IF_ERROR(executor.Run([&](Worker& worker) {
    cpus[worker.rank()] = AllowedCpus();
    return absl::OkStatus();
  }));
  return cpus;
}

absl::Status BindThisProcess(const Cpus& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  return Expect(sched_setaffinity(0, sizeof(set), &set) == 0, "cannot bind the process");
}

TEST_CASE("pinned ranks run on different cores inside the mask, and two executors share none") {
  if (!CanPin() || NumUsableCores() < 2) return;
  REQUIRE_OK(RunInChild(absl::Seconds(60), []() -> absl::Status {
    const Cpus allowed = AllowedCpus();
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor,
                              Executor::Create({.world_size = 2, .pin_threads = true}));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto cpus, RankCpus(*executor));
    for (const Cpus& one : cpus) {
      LOCKSTEP_RETURN_IF_ERROR(
          Expect(one.size() == 1 && std::binary_search(allowed.begin(), allowed.end(), one[0]),
                 std::string(executor->pinning())));
    }
    LOCKSTEP_RETURN_IF_ERROR(Expect(cpus[0] != cpus[1], "both ranks are on one CPU"));
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(executor->pinning() ==
                   absl::StrCat("rank 0 on CPU ", cpus[0][0], ", rank 1 on CPU ", cpus[1][0]),
               std::string(executor->pinning())));
    LOCKSTEP_ASSIGN_OR_RETURN(auto second,
                              Executor::Create({.world_size = static_cast<int>(allowed.size()) - 1,
                                                .pin_threads = true}));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto others, RankCpus(*second));
    for (const Cpus& one : others) {
      LOCKSTEP_RETURN_IF_ERROR(Expect(one == allowed, "pinned where others are pinned"));
    }
    return Expect(AllowedCpus() == allowed, "the caller was bound, too");
  }));
}

TEST_CASE("under a mask of one CPU two ranks are not pinned, and stay inside it") {
  if (!CanPin()) return;
  REQUIRE_OK(RunInChild(absl::Seconds(60), []() -> absl::Status {
    const Cpus one = {AllowedCpus().back()};
    LOCKSTEP_RETURN_IF_ERROR(BindThisProcess(one));
    LOCKSTEP_RETURN_IF_ERROR(Expect(NumUsableCores() == 1, "more than one core is usable"));
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor,
                              Executor::Create({.world_size = 2, .pin_threads = true}));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto cpus, RankCpus(*executor));
    LOCKSTEP_RETURN_IF_ERROR(Expect(cpus[0] == one && cpus[1] == one, "outside of the mask"));
    return Expect(executor->pinning().substr(0, 10) == "not pinned",
                  std::string(executor->pinning()));
  }));
}

TEST_CASE("ranks that are not to be pinned keep the mask of the thread that makes them") {
  auto executor = Executor::Create({.world_size = 2});
  REQUIRE_OK(executor);
  const auto cpus = RankCpus(**executor);
  REQUIRE_OK(cpus);
  CHECK((*cpus)[0] == AllowedCpus());
  CHECK((*executor)->pinning() == "not asked for");
}

}  // namespace
}  // namespace lockstep::internal
