#include "lockstep/runtime/pinning.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "lockstep/runtime/cuda/device.h"

#ifdef LOCKSTEP_HAS_HWLOC
#include <hwloc.h>
#endif

namespace lockstep::internal {
namespace {

bool Contains(const Cpus& cpus, int cpu) {
  return std::binary_search(cpus.begin(), cpus.end(), cpu);
}

// A core that is free is named by the CPU of it that a rank gets.
constexpr int kNone = -1;

// Per core the first CPU that is allowed, and kNone where there is none or somebody else has a part
// of the core.
Cpus FreeCores(const PinningChoice& choice) {
  Cpus free;
  for (const Cpus& core : choice.cores) {
    int first = kNone;
    bool taken = false;
    for (const int cpu : core) {
      if (first == kNone && Contains(choice.allowed, cpu)) first = cpu;
      taken = taken || Contains(choice.taken, cpu);
    }
    free.push_back(taken ? kNone : first);
  }
  return free;
}

// Gives each of `ranks` one of the cores in `free` that lie in `near`, evenly spread. False, and
// nobody gets any: there are not enough.
bool Spread(absl::Span<const int> ranks, const Cpus& near, Cpus& free, Cpus& cpus) {
  std::vector<int*> choice;
  for (int& cpu : free) {
    if (cpu != kNone && (near.empty() || Contains(near, cpu))) choice.push_back(&cpu);
  }
  if (choice.size() < ranks.size()) return false;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    int& cpu = *choice[i * choice.size() / ranks.size()];
    cpus[ranks[i]] = std::exchange(cpu, kNone);
  }
  return true;
}

std::string Describe(const Cpus& cpus) {
  std::string text;
  for (std::size_t rank = 0; rank < cpus.size(); ++rank) {
    absl::StrAppend(&text, rank == 0 ? "" : ", ", "rank ", rank, " on CPU ", cpus[rank]);
  }
  return text;
}

// CPUs to which threads of this process are bound, unless all of it is.
Cpus TakenCpus(const Cpus& allowed) {
  Cpus taken;
  const std::unique_ptr<DIR, int (*)(DIR*)> threads(opendir("/proc/self/task"), &closedir);
  if (threads == nullptr || allowed.size() < 2) return taken;
  while (const dirent* entry = readdir(threads.get())) {
    const int thread = std::atoi(entry->d_name);
    if (thread == 0) continue;
    const Cpus cpus = AllowedCpus(thread);
    if (cpus.size() == 1) taken.push_back(cpus[0]);
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

}  // namespace

Cpus AllowedCpus(pid_t thread) {
  Cpus cpus;
  // The set must be as large as the kernel's, which only its refusal tells.
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
        CPU_ALLOC(static_cast<std::size_t>(capacity)), [](cpu_set_t* freed) { CPU_FREE(freed); });
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
    if (set == nullptr) break;
    if (sched_getaffinity(thread, bytes, set.get()) != 0) {
      if (errno == EINVAL) continue;
      break;
    }
    for (int cpu = 0; cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, set.get())) cpus.push_back(cpu);
    }
    break;
  }
  return cpus;
}

int NumUsableCores() { return std::max(1, static_cast<int>(AllowedCpus().size())); }

Placement ChoosePlacement(const PinningChoice& choice) {
  const std::size_t world_size = choice.near.size();
  Cpus free = FreeCores(choice);
  const auto num_free =
      std::count_if(free.begin(), free.end(), [](int cpu) { return cpu != kNone; });
  if (static_cast<std::size_t>(num_free) < world_size) {
    return {{},
            absl::StrCat("not pinned: ", world_size, " ranks, and of the cores that this process ",
                         "may use ", num_free, " are free of other pinned threads")};
  }
  Cpus cpus(world_size, kNone);
  std::vector<int> anywhere;
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    if (cpus[rank] != kNone) continue;
    const Cpus& near = choice.near[rank];
    // Together with all ranks of the same place.
    std::vector<int> ranks;
    for (std::size_t other = rank; other < world_size; ++other) {
      if (choice.near[other] == near) ranks.push_back(static_cast<int>(other));
    }
    if (near.empty() || !Spread(ranks, near, free, cpus))
      anywhere.push_back(static_cast<int>(rank));
  }
  Spread(anywhere, {}, free, cpus);
  return {cpus, Describe(cpus)};
}

bool Pin(std::thread& thread, int cpu) {
  const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpu) + 1);
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
      CPU_ALLOC(static_cast<std::size_t>(cpu) + 1), [](cpu_set_t* freed) { CPU_FREE(freed); });
  if (set == nullptr) return false;
  CPU_ZERO_S(bytes, set.get());
  CPU_SET_S(static_cast<std::size_t>(cpu), bytes, set.get());
  return pthread_setaffinity_np(thread.native_handle(), bytes, set.get()) == 0;
}

#ifdef LOCKSTEP_HAS_HWLOC

std::vector<Cpus> CoresOf(hwloc_topology* topology) {
  std::vector<Cpus> cores;
  const int count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
  for (int index = 0; index < count; ++index) {
    const hwloc_obj_t core =
        hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, static_cast<unsigned>(index));
    Cpus& cpus = cores.emplace_back();
    for (int cpu = hwloc_bitmap_first(core->cpuset); cpu >= 0;
         cpu = hwloc_bitmap_next(core->cpuset, cpu)) {
      cpus.push_back(cpu);
    }
  }
  return cores;
}

Placement PlaceRanks(absl::Span<const Device> rank_devices) {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return {{}, "not pinned: hwloc does not start"};
  const std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)> owner(topology,
                                                                          &hwloc_topology_destroy);
  if (hwloc_topology_load(topology) != 0)
    return {{}, "not pinned: hwloc does not know this machine"};
  const std::vector<Cpus> cores = CoresOf(topology);
  PinningChoice choice{.cores = cores, .allowed = AllowedCpus(), .taken = {}, .near = {}};
  choice.taken = TakenCpus(choice.allowed);
  for (const Device device : rank_devices) {
    choice.near.push_back(device.is_cpu() ? Cpus() : cuda::CpusNear(device));
  }
  return ChoosePlacement(choice);
}

bool CanPin() { return true; }

#else

std::vector<Cpus> CoresOf(hwloc_topology*) { return {}; }
Placement PlaceRanks(absl::Span<const Device>) { return {{}, "not pinned: built without hwloc"}; }
bool CanPin() { return false; }

#endif

}  // namespace lockstep::internal
