// Owners of what CUDA gives and has to get back: events, streams, memory, graphs.
//
// An owner gives its handle back on the handle's own device, whatever device is current, and leaves
// the calling thread's device and context as they were. A device without a context (a host may have
// reset it) has taken its handles with it: then nothing is given back, and no context is made.
// Giving back waits for no work, but for memory's: cudaFree and cudaFreeHost may wait for the
// device.
#ifndef LOCKSTEP_RUNTIME_CUDA_HANDLES_H_
#define LOCKSTEP_RUNTIME_CUDA_HANDLES_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "lockstep/runtime/cuda/error.h"
#include "lockstep/runtime/cuda/guards.h"

namespace lockstep::internal::cuda {

/// Owns one handle, or none. Used by one thread at a time.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(Event done, Event::Create(device));
///   LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaEventRecord(done.get(), stream));
template <typename Native, auto kDestroy>
class Handle {
 public:
  Handle() = default;
  /// Takes over `native`, which is of `device`.
  Handle(Device device, Native native) : device_(device), native_(native) {}
  /// What `make(&native)`, the CUDA call of that name, makes on `device`.
  template <typename Owner = Handle, typename Maker>
  static absl::StatusOr<Owner> Make(Device device, absl::string_view call, Maker make) {
    const DeviceGuard guard(device);
    Native native = nullptr;
    LOCKSTEP_RETURN_IF_ERROR(ToStatus(make(&native), call, device));
    return Owner(device, native);
  }
  Handle(Handle&& other) noexcept
      : device_(other.device_), native_(std::exchange(other.native_, nullptr)) {}
  Handle& operator=(Handle other) noexcept {
    std::swap(device_, other.device_);
    std::swap(native_, other.native_);
    return *this;
  }
  ~Handle() {
    if (native_ == nullptr || !HasContext(device_)) return;
    const DeviceGuard guard(device_);
    // Its error would be somebody else's to find.
    if (static_cast<int>(kDestroy(native_)) != 0) cudaGetLastError();
  }

  /// Null where nothing is owned.
  Native get() const { return native_; }
  Device device() const { return device_; }

  /// Hands the handle over to owners who share it, and who need not know CUDA's types.
  std::shared_ptr<void> Share() && {
    Native const native = native_;
    return std::shared_ptr<void>(std::make_shared<Handle>(std::move(*this)), native);
  }

 private:
  Device device_ = Device::Cpu();
  Native native_ = nullptr;
};

class Event : public Handle<cudaEvent_t, cudaEventDestroy> {
 public:
  using Handle::Handle;
  static absl::StatusOr<Event> Create(Device device, unsigned flags = cudaEventDisableTiming) {
    return Make<Event>(device, "cudaEventCreateWithFlags",
                       [&](cudaEvent_t* event) { return cudaEventCreateWithFlags(event, flags); });
  }
};

/// A stream that waits for no other. The lower its priority, the sooner its work runs.
class OwnedStream : public Handle<cudaStream_t, cudaStreamDestroy> {
 public:
  using Handle::Handle;
  static absl::StatusOr<OwnedStream> Create(Device device, int priority = 0) {
    return Make<OwnedStream>(device, "cudaStreamCreateWithPriority", [&](cudaStream_t* stream) {
      return cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, priority);
    });
  }
};

class DeviceMemory : public Handle<void*, cudaFree> {
 public:
  using Handle::Handle;
  static absl::StatusOr<DeviceMemory> Create(Device device, std::int64_t bytes) {
    return Make<DeviceMemory>(device, "cudaMalloc", [&](void** memory) {
      return cudaMalloc(memory, static_cast<std::size_t>(bytes));
    });
  }
};

/// The host's memory, which it and all devices see at one address.
class PinnedMemory : public Handle<void*, cudaFreeHost> {
 public:
  using Handle::Handle;
  static absl::StatusOr<PinnedMemory> Create(Device device, std::int64_t bytes) {
    return Make<PinnedMemory>(device, "cudaHostAlloc", [&](void** memory) {
      return cudaHostAlloc(memory, static_cast<std::size_t>(bytes),
                           cudaHostAllocPortable | cudaHostAllocMapped);
    });
  }
};

using RecordedGraph = Handle<cudaGraph_t, cudaGraphDestroy>;
using ExecutableGraph = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;
/// A pool that is gone when the last of its blocks has come back.
using NativePool = Handle<cudaMemPool_t, cudaMemPoolDestroy>;

/// Gives a block of a NativePool back once the work that is queued on `stream` now is done.
inline void FreeAfter(cudaStream_t stream, void* block) {
  if (cudaFreeAsync(block, stream) != cudaSuccess) cudaGetLastError();
}

}  // namespace lockstep::internal::cuda

#endif  // LOCKSTEP_RUNTIME_CUDA_HANDLES_H_
