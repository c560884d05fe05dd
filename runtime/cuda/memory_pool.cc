#include "lockstep/runtime/cuda/memory_pool.h"

#include <array>
#include <limits>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "lockstep/runtime/block_cache.h"
#include "lockstep/runtime/cuda/device.h"
#include "lockstep/runtime/cuda/handles.h"
#include "lockstep/runtime/cuda/stream.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::size_t kSmallest = 512;

// One empty CUDA pool of each of the first 64 devices, until the host resets the device. A device's
// first memory that its peers may use takes the driver 9 ms (two H200), and so does the next
// wherever no such pool is left.
class KeptPools {
 public:
  // Ends the pool instead where its device has one.
  void Keep(NativePool pool) {
    const auto index = static_cast<std::size_t>(pool.device().index());
    if (cudaMemPoolTrimTo(pool.get(), 0) != cudaSuccess) cudaGetLastError();
    const std::lock_guard lock(mutex_);
    if (index < pools_.size() && pools_[index].get() == nullptr) pools_[index] = std::move(pool);
  }

 private:
  std::mutex mutex_;
  std::array<NativePool, 64> pools_;
};

// Never destroyed: pools may end after main.
KeptPools& TheKeptPools() {
  static KeptPools& pools = *new KeptPools;
  return pools;
}

// The device's memory behind a pool, which the pool and its blocks share, so that blocks may
// outlive it: a CUDA pool that keeps what it has, and that every device which can reach this one
// may read and write. Asking it for more neither waits for the device nor for its peers, as
// cudaMalloc may: one of them could be waiting for us.
class PooledMemory {
 public:
  static absl::StatusOr<std::shared_ptr<PooledMemory>> Create(Device device) {
    const DeviceGuard guard(device);
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location = {cudaMemLocationTypeDevice, device.index()};
    LOCKSTEP_ASSIGN_OR_RETURN(
        NativePool pool, NativePool::Make(device, "cudaMemPoolCreate", [&](cudaMemPool_t* made) {
          return cudaMemPoolCreate(made, &properties);
        }));
    const cudaMemPool_t native = pool.get();
    std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaMemPoolSetAttribute(native, cudaMemPoolAttrReleaseThreshold, &keep));
    // A request must not be made to wait for the stream in which a block was freed.
    int wait = 0;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaMemPoolSetAttribute(native, cudaMemPoolReuseAllowInternalDependencies, &wait));
    LOCKSTEP_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create(device));
    KeptPools* keeper = nullptr;
    for (int peer = 0; peer < DeviceCount(); ++peer) {
      int can = 0;
      if (peer == device.index() ||
          cudaDeviceCanAccessPeer(&can, peer, device.index()) != cudaSuccess || can == 0) {
        continue;
      }
      cudaMemAccessDesc access = {};
      access.location = {cudaMemLocationTypeDevice, peer};
      access.flags = cudaMemAccessFlagsProtReadWrite;
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaMemPoolSetAccess(native, &access, 1));
      keeper = &TheKeptPools();
    }
    return std::make_shared<PooledMemory>(device, std::move(pool), std::move(stream), keeper);
  }

  // `keeper`: null where no peer has access.
  PooledMemory(Device device, NativePool pool, OwnedStream stream, KeptPools* keeper)
      : device_(device), pool_(std::move(pool)), stream_(std::move(stream)), keeper_(keeper) {}
  ~PooledMemory() {
    if (!HasContext(device_)) return;
    const DeviceGuard guard(device_);
    // Every block has come back. Whatever was queued with this memory is done.
    if (cache_.free_bytes() > 0) cudaDeviceSynchronize();
    FreeAll();
    cudaStreamSynchronize(stream_.get());
    if (keeper_ != nullptr) keeper_->Keep(std::move(pool_));
  }
  PooledMemory(const PooledMemory&) = delete;
  PooledMemory& operator=(const PooledMemory&) = delete;

  BlockCache& cache() { return cache_; }

  // Null when there is none left. Also while the calling thread captures a graph: on a stream of
  // its own, so that the graph does not see it.
  void* Allocate(std::size_t size) {
    const DeviceGuard guard(device_);
    const AnyCall allowed;
    void* block = nullptr;
    cudaError_t error = cudaMallocFromPoolAsync(&block, size, pool_.get(), stream_.get());
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_.get());
    if (error == cudaSuccess) return block;
    cudaGetLastError();
    return nullptr;
  }

  // Gives a block to CUDA's pool once the work that is queued on `user` now is done. Waits for
  // nothing.
  void FreeAfter(cudaStream_t user, const Block& block) {
    const DeviceGuard guard(device_);
    const AnyCall allowed;
    cuda::FreeAfter(user, block.memory);
  }

  // Gives all that is free back to the device, once nothing that is queued uses it.
  absl::StatusOr<std::int64_t> Trim() {
    const DeviceGuard guard(device_);
    const AnyCall allowed;
    const std::int64_t before = ReservedBytes();
    FreeAll();
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, cudaStreamSynchronize(stream_.get()));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, cudaMemPoolTrimTo(pool_.get(), 0));
    return before - ReservedBytes();
  }

  std::int64_t ReservedBytes() const {
    std::uint64_t bytes = 0;
    if (cudaMemPoolGetAttribute(pool_.get(), cudaMemPoolAttrReservedMemCurrent, &bytes) !=
        cudaSuccess) {
      cudaGetLastError();
    }
    return static_cast<std::int64_t>(bytes);
  }

 private:
  void FreeAll() {
    while (const Block block = cache_.TakeOldest()) cuda::FreeAfter(stream_.get(), block.memory);
  }

  const Device device_;
  NativePool pool_;
  const OwnedStream stream_;
  KeptPools* const keeper_;
  BlockCache cache_;
};

// The blocks of one captured graph. A replay uses them again at any time, so nobody else may until
// the graph is gone.
struct GraphBlocks {
  explicit GraphBlocks(std::shared_ptr<PooledMemory> m) : memory(std::move(m)) {}
  ~GraphBlocks() {
    for (const Block& block : all) memory->cache().Put(block.size, block.memory);
  }
  const std::shared_ptr<PooledMemory> memory;
  BlockCache cache;
  std::vector<Block> all;
};

struct Capture {
  unsigned long long id = 0;  // 0: none
  cudaGraph_t graph = nullptr;
};

cudaError_t CaptureOf(cudaStream_t stream, Capture& capture) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
#if CUDART_VERSION >= 13000
  const cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, &capture.id, &capture.graph,
                                                     nullptr, nullptr, nullptr);
#else
  const cudaError_t error =
      cudaStreamGetCaptureInfo_v2(stream, &status, &capture.id, &capture.graph, nullptr, nullptr);
#endif
  if (status != cudaStreamCaptureStatusActive) capture = {};
  return error;
}

class CudaMemoryPool final : public MemoryPool {
 public:
  CudaMemoryPool(const Stream& stream, std::shared_ptr<PooledMemory> memory)
      : stream_(stream), memory_(std::move(memory)) {}

  absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) override {
    if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 2)
      return NoMemory(stream_.device(), bytes);
    const DeviceGuard guard(stream_.device());
    Capture capture;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(stream_.device(), CaptureOf(NativeStream(stream_), capture));
    try {
      const std::size_t size = SizeClass(static_cast<std::size_t>(bytes), kSmallest);
      return capture.id == 0 ? AllocateNow(bytes, size) : AllocateForGraph(bytes, size, capture);
    } catch (const std::bad_alloc&) {
      return NoMemory(stream_.device(), bytes);
    }
  }

  absl::StatusOr<std::int64_t> Trim() override {
    Capture capture;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(stream_.device(), CaptureOf(NativeStream(stream_), capture));
    if (capture.id != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("memory: Trim called while the stream of ", stream_.device().ToString(),
                       " is being captured; trim before or after"));
    }
    LOCKSTEP_RETURN_IF_ERROR(stream_.Synchronize());
    return memory_->Trim();
  }

  std::int64_t reserved_bytes() const override { return memory_->ReservedBytes(); }
  std::int64_t used_bytes() const override { return memory_->cache().used_bytes(); }
  std::int64_t free_bytes() const override { return memory_->cache().free_bytes(); }

 private:
  void* Take(std::size_t size, bool capturing) {
    BlockCache& cache = memory_->cache();
    if (void* const block = cache.Take(size)) return block;
    if (!capturing) {
      while (const Block surplus = cache.TakeSurplus(size))
        memory_->FreeAfter(NativeStream(stream_), surplus);
    }
    void* block = memory_->Allocate(size);
    if (block == nullptr && !capturing && Trim().ok()) block = memory_->Allocate(size);
    if (block != nullptr) cache.Add(size);
    return block;
  }

  absl::StatusOr<std::shared_ptr<void>> AllocateNow(std::int64_t bytes, std::size_t size) {
    void* const block = Take(size, /*capturing=*/false);
    if (block == nullptr) return NoMemory(stream_.device(), bytes);
    return std::shared_ptr<void>(
        block, [memory = memory_, size](void* returned) { memory->cache().Put(size, returned); });
  }

  absl::StatusOr<std::shared_ptr<void>> AllocateForGraph(std::int64_t bytes, std::size_t size,
                                                         const Capture& capture) {
    if (capture.id != capture_id_) LOCKSTEP_RETURN_IF_ERROR(BeginGraph(capture));
    const std::shared_ptr<GraphBlocks> graph = graph_.lock();
    LOCKSTEP_CHECK(graph != nullptr);  // the graph that is being captured holds it
    void* block = graph->cache.Take(size);
    if (block == nullptr) {
      graph->all.reserve(graph->all.size() + 1);
      block = Take(size, /*capturing=*/true);
      if (block == nullptr) return NoMemory(stream_.device(), bytes);
      graph->all.push_back({block, size});
    }
    return std::shared_ptr<void>(
        block, [graph, size](void* returned) { graph->cache.Put(size, returned); });
  }

  // Hands a share in the blocks to the graph, which lets go of it with its last instance.
  absl::Status BeginGraph(const Capture& capture) {
    auto blocks = std::make_shared<GraphBlocks>(memory_);
    auto share = std::make_unique<std::shared_ptr<GraphBlocks>>(blocks);
    cudaUserObject_t object = nullptr;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        stream_.device(),
        cudaUserObjectCreate(
            &object, share.get(),
            [](void* pointer) { delete static_cast<std::shared_ptr<GraphBlocks>*>(pointer); }, 1,
            cudaUserObjectNoDestructorSync));
    share.release();
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        stream_.device(),
        cudaGraphRetainUserObject(capture.graph, object, 1, cudaGraphUserObjectMove));
    graph_ = blocks;
    capture_id_ = capture.id;
    return absl::OkStatus();
  }

  const Stream stream_;
  const std::shared_ptr<PooledMemory> memory_;
  // The graph that was captured last. Only the rank's own thread asks for memory.
  unsigned long long capture_id_ = 0;
  std::weak_ptr<GraphBlocks> graph_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<MemoryPool>> MakeMemoryPool(const Stream& stream) {
  LOCKSTEP_RETURN_IF_ERROR(CheckDevice(stream.device()));
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, PooledMemory::Create(stream.device()));
  return std::make_shared<CudaMemoryPool>(stream, std::move(memory));
}

}  // namespace lockstep::internal::cuda
