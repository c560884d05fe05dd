#include "lockstep/collective/cuda/reach.h"

#include <algorithm>

#include "lockstep/runtime/cuda/driver.h"
#include "lockstep/runtime/cuda/guards.h"

namespace lockstep::internal::cuda {
namespace {

template <typename Value>
bool Ask(const Driver& driver, CUpointer_attribute attribute, std::uintptr_t at, Value& value) {
  return driver.pointer_get_attribute(&value, attribute, at) == CUDA_SUCCESS;
}

// Whether a pool gives `device` access to its memory at `at`; memory of no pool is mapped by other
// rules. The access flags of the pointer do not tell: they are those that peer access gives.
bool PoolAdmits(const Driver& driver, std::uintptr_t at, Device device) {
  CUmemoryPool pool = nullptr;
  int owner = -1;
  if (!Ask(driver, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, at, pool) || pool == nullptr) return true;
  if (Ask(driver, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at, owner) && owner == device.index()) {
    return true;
  }
  CUmemLocation location = {};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device.index();
  CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return driver.mem_pool_get_access(&flags, pool, &location) == CUDA_SUCCESS &&
         flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
}

bool DeviceMayUse(const Driver& driver, Device device, std::uintptr_t at) {
  const DeviceGuard guard(device);
  const AnyCall allowed;
  auto flags = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_NONE;
  return Ask(driver, CU_POINTER_ATTRIBUTE_ACCESS_FLAGS, at, flags) &&
         flags == CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE && PoolAdmits(driver, at, device);
}

}  // namespace

Reach::Reach(absl::Span<const Device> devices, bool by_peers) : ranks_(devices.size()) {
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    std::vector<Device>& users = ranks_[rank].users;
    users.push_back(devices[rank]);
    for (const Device device : devices) {
      if (by_peers && std::count(users.begin(), users.end(), device) == 0) users.push_back(device);
    }
  }
}

absl::Status Reach::Check(int rank, const CollectiveCall& call) {
  Rank& mine = ranks_[rank];
  const auto size = static_cast<std::int64_t>(SizeOf(call.dtype));
  // Of a broadcast's inputs the root's alone is read.
  const bool reads = call.kind != CollectiveKind::kBroadcast || call.root == rank;
  const std::int64_t in_bytes = reads ? call.in_count() * size : 0;
  const std::int64_t out_bytes = call.out_count() * size;
  const bool in_place = call.in == call.out && in_bytes <= out_bytes;
  Device refused = Device::Cpu();
  const bool in_reach = in_place || MayUse(mine, call.in, in_bytes, refused);
  if (in_reach && MayUse(mine, call.out, out_bytes, refused)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      Name(call.kind), ": ", refused.ToString(), " may not read and write the memory of ",
      in_reach && !in_place ? "out" : "in",
      "; take it from Worker::Empty or cudaMalloc, or give every GPU of the group access with "
      "cudaMemPoolSetAccess or cuMemSetAccess"));
}

bool Reach::MayUse(Rank& rank, const void* data, std::int64_t bytes, Device& refused) {
  const Driver* const driver = GetDriver();
  if (bytes == 0 || driver == nullptr) return true;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t end = begin + static_cast<std::uintptr_t>(bytes);
  std::uint64_t id = 0;
  if (!Ask(*driver, CU_POINTER_ATTRIBUTE_BUFFER_ID, begin, id)) id = 0;
  Known& known = rank.known[id % rank.known.size()];
  if (id != 0 && known.id == id && known.begin <= begin && end <= known.end) return true;
  for (const Device device : rank.users) {
    refused = device;
    if (!DeviceMayUse(*driver, device, begin) || !DeviceMayUse(*driver, device, end - 1)) {
      return false;
    }
  }
  if (id == 0) return true;
  known = known.id == id ? Known{id, std::min(known.begin, begin), std::max(known.end, end)}
                         : Known{id, begin, end};
  return true;
}

}  // namespace lockstep::internal::cuda
