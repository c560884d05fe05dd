// Who owns a handle of CUDA's gives it back on the handle's device, and leaves what the calling
// thread had. Without a GPU there is nothing to own.
#include "lockstep/runtime/cuda/handles.h"

#include <cuda.h>

#include <functional>
#include <thread>
#include <vector>

#include "lockstep/runtime/cuda/driver.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/gpus.h"

namespace lockstep {
namespace {

using internal::cuda::DeviceMemory;
using internal::cuda::Event;
using internal::cuda::Handle;
using internal::cuda::OwnedStream;
using internal::cuda::PinnedMemory;
using testing::Gpus;

absl::Status Must(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(what);
}

// In a thread of its own, which no CUDA call has touched before.
absl::Status OnFreshThread(const std::function<absl::Status()>& body) {
  absl::Status status;
  std::thread([&] { status = body(); }).join();
  return status;
}

CUcontext CurrentContext() {
  CUcontext context = nullptr;
  internal::cuda::GetDriver()->ctx_get_current(&context);
  return context;
}

// Where and how often a handle was given back.
struct Ends {
  int count = 0;
  int device = -1;
  bool in_context = false;
  bool fails = false;
};
cudaError_t NoteEnd(Ends* ends) {
  ++ends->count;
  cudaGetDevice(&ends->device);
  ends->in_context = CurrentContext() != nullptr;
  return ends->fails ? cudaMemset(nullptr, 0, 1) : cudaSuccess;
}
using Noted = Handle<Ends*, NoteEnd>;

// A handle of `device` ends on a thread that has set `current`, or nothing (-1).
absl::Status EndsWhereItIs(Device device, int current) {
  LOCKSTEP_RETURN_IF_ERROR(Event::Create(device).status());  // brings the context
  if (current >= 0) cudaSetDevice(current);
  const CUcontext before = CurrentContext();
  Ends ends{.fails = true};
  { const Noted noted(device, &ends); }
  LOCKSTEP_RETURN_IF_ERROR(Must(ends.count == 1, "it was not given back once"));
  LOCKSTEP_RETURN_IF_ERROR(Must(ends.device == device.index() && ends.in_context,
                                absl::StrCat("it was given back on device ", ends.device)));
  LOCKSTEP_RETURN_IF_ERROR(Must(CurrentContext() == before, "the context is another"));
  int now = -1;
  cudaGetDevice(&now);
  LOCKSTEP_RETURN_IF_ERROR(Must(current < 0 || now == current, "the device is another"));
  return Must(cudaPeekAtLastError() == cudaSuccess, "its error was left behind");
}

TEST_CASE("a handle ends on its own device, whatever device its owner's thread has",
          "[gpu][cuda_error]") {
  const std::vector<Device> gpus = Gpus();
  for (const Device device : gpus) {
    for (int current = -1; current < static_cast<int>(gpus.size()); ++current) {
      INFO("a handle of " << device.ToString() << ", current device " << current);
      REQUIRE_OK(OnFreshThread([&] { return EndsWhereItIs(device, current); }));
    }
  }
}

TEST_CASE("a handle ends once, with the last who owns it", "[gpu]") {
  if (Gpus().empty()) return;
  REQUIRE_OK(Event::Create(Device::Cuda(0)));
  Ends first;
  Ends second;
  {
    Noted a(Device::Cuda(0), &first);
    Noted b(std::move(a));
    CHECK(a.get() == nullptr);
    CHECK(b.get() == &first);
    b = Noted(Device::Cuda(0), &second);
    CHECK(first.count == 1);
    b = {};
    CHECK(second.count == 1);
    Noted c(Device::Cuda(0), &second);
    std::shared_ptr<void> shared = std::move(c).Share();
    CHECK(shared.get() == &second);
    const std::shared_ptr<void> also = shared;
    shared.reset();
    CHECK(second.count == 1);
  }
  CHECK(first.count == 1);
  CHECK(second.count == 2);
}

TEST_CASE("what owners give back, the device has again, while another device is current", "[gpu]") {
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  const std::vector<Device> gpus = Gpus();
  for (const Device device : gpus) {
    INFO(device.ToString());
    const auto free_bytes = [&] {
      const internal::cuda::DeviceGuard guard(device);
      std::size_t free = 0;
      std::size_t total = 0;
      cudaMemGetInfo(&free, &total);
      return static_cast<std::int64_t>(free);
    };
    REQUIRE_OK(OnFreshThread([&]() -> absl::Status {
      cudaSetDevice((device.index() + 1) % static_cast<int>(gpus.size()));
      LOCKSTEP_RETURN_IF_ERROR(DeviceMemory::Create(device, kBytes).status());
      const std::int64_t before = free_bytes();
      for (int turn = 0; turn < 3; ++turn) {
        LOCKSTEP_ASSIGN_OR_RETURN(const DeviceMemory memory, DeviceMemory::Create(device, kBytes));
        LOCKSTEP_ASSIGN_OR_RETURN(const PinnedMemory pinned, PinnedMemory::Create(device, 1 << 20));
        LOCKSTEP_ASSIGN_OR_RETURN(const OwnedStream stream, OwnedStream::Create(device));
        LOCKSTEP_ASSIGN_OR_RETURN(const Event event, Event::Create(device));
        // They end with work under way.
        const internal::cuda::DeviceGuard guard(device);
        LOCKSTEP_RETURN_IF_CUDA_ERROR(device,
                                      cudaMemsetAsync(memory.get(), 0, kBytes, stream.get()));
        LOCKSTEP_RETURN_IF_CUDA_ERROR(device, cudaEventRecord(event.get(), stream.get()));
        LOCKSTEP_RETURN_IF_ERROR(Must(before - free_bytes() >= kBytes, "no memory was taken"));
      }
      LOCKSTEP_RETURN_IF_ERROR(Must(before - free_bytes() < kBytes, "memory is still taken"));
      return Must(cudaPeekAtLastError() == cudaSuccess, "an error was left behind");
    }));
  }
}

TEST_CASE("a handle that its device's reset took makes no context when it ends", "[gpu]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.empty()) return;
  const Device device = gpus.back();
  REQUIRE_OK(OnFreshThread([&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(Event::Create(device).status());
    LOCKSTEP_RETURN_IF_ERROR(Must(internal::cuda::HasContext(device), "there is no context"));
    Ends ends;
    {
      const Noted noted(device, &ends);
      LOCKSTEP_ASSIGN_OR_RETURN(const Event event, Event::Create(device));
      cudaSetDevice(device.index());
      cudaDeviceReset();
      LOCKSTEP_RETURN_IF_ERROR(Must(!internal::cuda::HasContext(device), "it was not reset"));
    }
    LOCKSTEP_RETURN_IF_ERROR(Must(ends.count == 0, "it was given back all the same"));
    return Must(!internal::cuda::HasContext(device), "there is a context again");
  }));
  // And the device can be used again.
  REQUIRE_OK(Event::Create(device));
}

}  // namespace
}  // namespace lockstep
