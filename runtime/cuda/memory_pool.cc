#include <cuda_runtime_api.h>

#include <atomic>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "lockstep/runtime/block_cache.h"
#include "lockstep/runtime/cuda/cuda.h"
#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/worker_state.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::size_t kSmallest = 512;

// The device's memory behind a pool: a CUDA pool that keeps what it has, and that every device
// which can reach this one may read and write. Asking it for more neither waits for the device nor
// for its peers, as cudaMalloc may: one of them could be waiting for us.
class DeviceMemory {
 public:
  static absl::StatusOr<std::shared_ptr<DeviceMemory>> Create(Device device) {
    const DeviceGuard guard(device);
    auto memory = std::make_shared<DeviceMemory>(device);
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location = {cudaMemLocationTypeDevice, device.index()};
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaMemPoolCreate(&memory->pool_, &properties));
    std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaMemPoolSetAttribute(memory->pool_, cudaMemPoolAttrReleaseThreshold, &keep));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device, cudaStreamCreateWithFlags(&memory->stream_, cudaStreamNonBlocking));
    for (int peer = 0; peer < DeviceCount(); ++peer) {
      int can = 0;
      if (peer == device.index() ||
          cudaDeviceCanAccessPeer(&can, peer, device.index()) != cudaSuccess || can == 0) {
        continue;
      }
      cudaMemAccessDesc access = {};
      access.location = {cudaMemLocationTypeDevice, peer};
      access.flags = cudaMemAccessFlagsProtReadWrite;
      LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaMemPoolSetAccess(memory->pool_, &access, 1));
    }
    return memory;
  }

  explicit DeviceMemory(Device device) : device_(device) {}
  ~DeviceMemory() {
    const DeviceGuard guard(device_);
    // Whatever was queued with this memory is done.
    if (!blocks_.empty()) cudaDeviceSynchronize();
    for (void* block : blocks_) cudaFreeAsync(block, stream_);
    if (stream_ != nullptr) {
      cudaStreamSynchronize(stream_);
      cudaStreamDestroy(stream_);
    }
    if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Null when there is none left. Also while the calling thread captures a graph: on a stream of
  // its own, so that the graph does not see it.
  void* Allocate(std::size_t size) {
    blocks_.reserve(blocks_.size() + 1);
    const DeviceGuard guard(device_);
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    void* block = nullptr;
    cudaError_t error = cudaMallocFromPoolAsync(&block, size, pool_, stream_);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
    cudaThreadExchangeStreamCaptureMode(&mode);
    if (error != cudaSuccess) {
      cudaGetLastError();
      return nullptr;
    }
    blocks_.push_back(block);
    return block;
  }

 private:
  const Device device_;
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t stream_ = nullptr;
  // All that were asked for; only the rank's own thread asks.
  std::vector<void*> blocks_;
};

// What a pool and its blocks share, so that blocks may outlive it. The blocks themselves end with
// the device's memory.
struct Shared {
  std::shared_ptr<DeviceMemory> memory;
  BlockCache cache{[](void*) {}};
};

// The blocks of one captured graph. A replay uses them again at any time, so nobody else may until
// the graph is gone.
struct GraphBlocks {
  explicit GraphBlocks(std::shared_ptr<Shared> s) : shared(std::move(s)) {}
  ~GraphBlocks() {
    for (const auto& [size, block] : all) shared->cache.Put(size, block);
  }
  const std::shared_ptr<Shared> shared;
  BlockCache cache{[](void*) {}};
  std::vector<std::pair<std::size_t, void*>> all;
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
  CudaMemoryPool(const Stream& stream, std::shared_ptr<Shared> shared)
      : stream_(stream), shared_(std::move(shared)) {}

  absl::StatusOr<std::shared_ptr<void>> Allocate(std::int64_t bytes) override {
    if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 2) return NoMemory(bytes);
    const DeviceGuard guard(stream_.device());
    Capture capture;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(stream_.device(), CaptureOf(NativeStream(stream_), capture));
    try {
      const std::size_t size = SizeClass(static_cast<std::size_t>(bytes), kSmallest);
      return capture.id == 0 ? AllocateNow(bytes, size) : AllocateForGraph(bytes, size, capture);
    } catch (const std::bad_alloc&) {
      return NoMemory(bytes);
    }
  }

  std::int64_t reserved_bytes() const override {
    return reserved_bytes_.load(std::memory_order_relaxed);
  }

 private:
  absl::Status NoMemory(std::int64_t bytes) const {
    return absl::ResourceExhaustedError(absl::StrCat("memory: ", bytes, " bytes asked for on ",
                                                     stream_.device().ToString(),
                                                     ", and there are not that many"));
  }

  void* Take(std::size_t size) {
    if (void* const block = shared_->cache.Take(size)) return block;
    void* const block = shared_->memory->Allocate(size);
    if (block != nullptr)
      reserved_bytes_.fetch_add(static_cast<std::int64_t>(size), std::memory_order_relaxed);
    return block;
  }

  absl::StatusOr<std::shared_ptr<void>> AllocateNow(std::int64_t bytes, std::size_t size) {
    void* const block = Take(size);
    if (block == nullptr) return NoMemory(bytes);
    return std::shared_ptr<void>(
        block, [shared = shared_, size](void* returned) { shared->cache.Put(size, returned); });
  }

  absl::StatusOr<std::shared_ptr<void>> AllocateForGraph(std::int64_t bytes, std::size_t size,
                                                         const Capture& capture) {
    if (capture.id != capture_id_) LOCKSTEP_RETURN_IF_ERROR(BeginGraph(capture));
    const std::shared_ptr<GraphBlocks> graph = graph_.lock();
    LOCKSTEP_CHECK(graph != nullptr);  // the graph that is being captured holds it
    void* block = graph->cache.Take(size);
    if (block == nullptr) {
      graph->all.reserve(graph->all.size() + 1);
      block = Take(size);
      if (block == nullptr) return NoMemory(bytes);
      graph->all.emplace_back(size, block);
    }
    return std::shared_ptr<void>(
        block, [graph, size](void* returned) { graph->cache.Put(size, returned); });
  }

  // Hands a share in the blocks to the graph, which lets go of it with its last instance.
  absl::Status BeginGraph(const Capture& capture) {
    auto blocks = std::make_shared<GraphBlocks>(shared_);
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
  const std::shared_ptr<Shared> shared_;
  std::atomic<std::int64_t> reserved_bytes_{0};
  // The graph that was captured last. Only the rank's own thread asks for memory.
  unsigned long long capture_id_ = 0;
  std::weak_ptr<GraphBlocks> graph_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<MemoryPool>> MakeMemoryPool(const Stream& stream) {
  LOCKSTEP_RETURN_IF_ERROR(CheckDevice(stream.device()));
  LOCKSTEP_ASSIGN_OR_RETURN(auto memory, DeviceMemory::Create(stream.device()));
  auto shared = std::make_shared<Shared>();
  shared->memory = std::move(memory);
  return std::make_shared<CudaMemoryPool>(stream, std::move(shared));
}

}  // namespace lockstep::internal::cuda
