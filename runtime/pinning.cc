#include "lockstep/runtime/pinning.h"

#include <vector>

#ifdef LOCKSTEP_HAS_HWLOC
#include <hwloc.h>
#endif

namespace lockstep::internal {

#ifdef LOCKSTEP_HAS_HWLOC

void PinThisThread(int rank, int world_size) {
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return;
  if (hwloc_topology_load(topology) == 0 &&
      hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) >= world_size) {
    std::vector<hwloc_bitmap_t> cores(static_cast<std::size_t>(world_size));
    hwloc_obj_t root = hwloc_get_root_obj(topology);
    if (hwloc_distrib(topology, &root, 1, cores.data(), static_cast<unsigned>(world_size),
                      HWLOC_OBJ_CORE, 0) == 0) {
      hwloc_bitmap_t mine = cores[static_cast<std::size_t>(rank)];
      hwloc_bitmap_singlify(mine);
      hwloc_set_cpubind(topology, mine, HWLOC_CPUBIND_THREAD);
      for (hwloc_bitmap_t core : cores) hwloc_bitmap_free(core);
    }
  }
  hwloc_topology_destroy(topology);
}

bool CanPin() { return true; }

#else

void PinThisThread(int, int) {}

bool CanPin() { return false; }

#endif

}  // namespace lockstep::internal
