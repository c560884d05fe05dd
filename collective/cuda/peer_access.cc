#include <algorithm>
#include <chrono>
#include <thread>

#include "lockstep/collective/cuda/transports.h"
#include "lockstep/runtime/cuda/driver.h"

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
    while ((error = QueryStream(stream_)) == cudaErrorNotReady) {
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

}  // namespace

absl::Status EnablePeerAccess(Device from, Device to) {
  int can = 0;
  LOCKSTEP_RETURN_IF_CUDA_ERROR(from, cudaDeviceCanAccessPeer(&can, from.index(), to.index()));
  if (can == 0) {
    return absl::UnavailableError(
        absl::StrCat(from.ToString(), " cannot reach the memory of ", to.ToString()));
  }
  const Driver* const driver = GetDriver();
  const DeviceGuard guard(from);
  // Asked of the driver: that it is enabled already, by the host or for another group, is no error
  // for the host to find.
  const CUresult result = driver == nullptr
                              ? CUDA_ERROR_NOT_INITIALIZED
                              : driver->ctx_enable_peer_access(PrimaryContext(*driver, to), 0);
  if (result == CUDA_SUCCESS || result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) {
    return absl::OkStatus();
  }
  return Error(static_cast<cudaError_t>(result), "cuCtxEnablePeerAccess", from);
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

}  // namespace lockstep::internal::cuda
