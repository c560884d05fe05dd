#include <cuda.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "lockstep/collective/cuda/transports.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::int64_t kWords = 16 << 10;
constexpr std::size_t kBytes = kWords * sizeof(std::uint32_t);
constexpr auto kLimit = std::chrono::seconds(5);

// A device's memory and stream for the proof: the pattern, and the count of wrong words behind it.
class Bench {
 public:
  explicit Bench(Device device) : device_(device) {}
  ~Bench() {
    const DeviceGuard guard(device_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    if (words_ != nullptr) cudaFree(words_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  absl::Status Prepare() {
    const DeviceGuard guard(device_);
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device_, cudaMalloc(reinterpret_cast<void**>(&words_), kBytes + sizeof(std::uint32_t)));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_,
                                  cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    return absl::OkStatus();
  }

  Device device() const { return device_; }
  std::uint32_t* words() const { return words_; }
  cudaStream_t stream() const { return stream_; }

  // Waits for the stream, but not for ever.
  absl::Status Wait() const {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    cudaError_t error = cudaErrorNotReady;
    while ((error = cudaStreamQuery(stream_)) == cudaErrorNotReady) {
      if (std::chrono::steady_clock::now() > deadline) {
        return absl::UnavailableError("it took more than 5 s");
      }
      std::this_thread::yield();
    }
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, error);
    return absl::OkStatus();
  }

  // This device's kernels read `words` and find the pattern.
  absl::Status Expect(const std::uint32_t* words, std::uint32_t seed, absl::string_view what) {
    const DeviceGuard guard(device_);
    std::uint32_t* const wrong = words_ + kWords;
    std::uint32_t count = 0;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, cudaMemsetAsync(wrong, 0, sizeof(count), stream_));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device_, LaunchCountWrong(words, kWords, seed, wrong, stream_));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device_, cudaMemcpyAsync(&count, wrong, sizeof(count), cudaMemcpyDeviceToHost, stream_));
    LOCKSTEP_RETURN_IF_ERROR(Wait());
    if (count == 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(what, " lost ", count, " of ", kWords, " words"));
  }

 private:
  const Device device_;
  std::uint32_t* words_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

// Everything that crosses from `from` to the memory of `to`.
absl::Status ProvePair(Bench& from, Bench& to, std::uint32_t seed, bool spoil) {
  const DeviceGuard guard(from.device());
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from.device(),
                                LaunchWritePattern(to.words(), kWords, seed, from.stream()));
  if (spoil) {
    LOCKSTEP_RETURN_IF_CUDA_ERROR(from.device(),
                                  cudaMemsetAsync(to.words() + 17, 0x5A, 1, from.stream()));
  }
  LOCKSTEP_RETURN_IF_ERROR(from.Wait());
  LOCKSTEP_RETURN_IF_ERROR(to.Expect(to.words(), seed, "kernel stores"));
  LOCKSTEP_RETURN_IF_ERROR(from.Expect(to.words(), seed, "kernel loads"));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from.device(),
                                LaunchWritePattern(from.words(), kWords, seed + 1, from.stream()));
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from.device(),
                                cudaMemcpyPeerAsync(to.words(), to.device().index(), from.words(),
                                                    from.device().index(), kBytes, from.stream()));
  LOCKSTEP_RETURN_IF_ERROR(from.Wait());
  return to.Expect(to.words(), seed + 1, "copies");
}

// The driver's own question, which the runtime does not offer. The library is not linked with the
// driver, so that it loads where there is none.
using GetPointerAttribute = CUresult (*)(void*, CUpointer_attribute, CUdeviceptr);

GetPointerAttribute FindGetPointerAttribute() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuPointerGetAttribute", &function,
                                                             12000, cudaEnableDefault, &found);
#else
  const cudaError_t error =
      cudaGetDriverEntryPoint("cuPointerGetAttribute", &function, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<GetPointerAttribute>(function);
}

// Whether the current device may read and write there.
bool MayUse(const void* pointer) {
  static const GetPointerAttribute get = FindGetPointerAttribute();
  CUDA_POINTER_ATTRIBUTE_ACCESS_FLAGS flags = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_NONE;
  return get == nullptr || (get(&flags, CU_POINTER_ATTRIBUTE_ACCESS_FLAGS,
                                reinterpret_cast<CUdeviceptr>(pointer)) == CUDA_SUCCESS &&
                            flags == CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE);
}

}  // namespace

absl::Status EnablePeerAccess(Device from, Device to) {
  int can = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from, cudaDeviceCanAccessPeer(&can, from.index(), to.index()));
  if (can == 0) {
    return absl::UnavailableError(
        absl::StrCat(from.ToString(), " cannot reach the memory of ", to.ToString()));
  }
  const DeviceGuard guard(from);
  const cudaError_t error = cudaDeviceEnablePeerAccess(to.index(), 0);
  // By the host, or another group.
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return absl::OkStatus();
  }
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from, error);
  return absl::OkStatus();
}

absl::Status ProvePeerAccess(const DeviceGroup& group, bool spoil) {
  std::vector<std::unique_ptr<Bench>> benches;
  for (int rank = 0; rank < group.num_ranks(); ++rank) {
    const Device device = group.device(rank);
    const bool known = std::any_of(benches.begin(), benches.end(),
                                   [&](const auto& bench) { return bench->device() == device; });
    if (known) continue;
    benches.push_back(std::make_unique<Bench>(device));
    LOCKSTEP_RETURN_IF_ERROR(benches.back()->Prepare());
  }
  std::uint32_t seed = 1;
  for (auto& from : benches) {
    for (auto& to : benches) {
      if (from == to) continue;
      LOCKSTEP_RETURN_IF_ERROR(EnablePeerAccess(from->device(), to->device()));
    }
  }
  for (auto& from : benches) {
    for (auto& to : benches) {
      if (from == to) continue;
      const absl::Status proof = ProvePair(*from, *to, seed++, spoil);
      if (proof.ok()) continue;
      return absl::UnavailableError(absl::StrCat("from ", from->device().ToString(), " to ",
                                                 to->device().ToString(), ": ", proof.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckReach(const DeviceGroup& group, const CollectiveCall& call) {
  for (int rank = 0; rank < group.num_ranks(); ++rank) {
    const Device device = group.device(rank);
    if (rank > 0 && device == group.device(rank - 1)) continue;
    const DeviceGuard guard(device);
    const bool in_reach = call.in_count() == 0 || MayUse(call.in);
    if (in_reach && (call.out_count() == 0 || MayUse(call.out))) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        Name(call.kind), ": ", device.ToString(), " may not read and write the memory of ",
        in_reach ? "out" : "in",
        "; take it from Worker::Empty or cudaMalloc, or give every GPU of the group access with "
        "cudaMemPoolSetAccess or cuMemSetAccess"));
  }
  return absl::OkStatus();
}

}  // namespace lockstep::internal::cuda
