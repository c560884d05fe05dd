#include <algorithm>
#include <chrono>

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
  static absl::StatusOr<Bench> Create(Device device) {
    LOCKSTEP_ASSIGN_OR_RETURN(DeviceMemory memory,
                              DeviceMemory::Create(device, kBytes + sizeof(std::uint32_t)));
    LOCKSTEP_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create(device));
    return Bench(std::move(memory), std::move(stream));
  }

  Device device() const { return stream_.device(); }
  std::uint32_t* words() const { return static_cast<std::uint32_t*>(memory_.get()); }
  cudaStream_t stream() const { return stream_.get(); }

  // Waits for the stream, but not for ever.
  absl::Status Wait() const {
    const cudaError_t error = AwaitStream(stream(), std::chrono::steady_clock::now() + kLimit);
    if (error == cudaErrorNotReady) return absl::UnavailableError("it took more than 5 s");
    return ToStatus(error, "cudaStreamQuery", device());
  }

  // This device's kernels read `found` and find the pattern.
  absl::Status Expect(const std::uint32_t* found, std::uint32_t seed,
                      absl::string_view what) const {
    const DeviceGuard guard(device());
    std::uint32_t* const wrong = words() + kWords;
    std::uint32_t count = 0;
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device(), cudaMemsetAsync(wrong, 0, sizeof(count), stream()));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(device(), LaunchCountWrong(found, kWords, seed, wrong, stream()));
    LOCKSTEP_RETURN_IF_CUDA_ERROR(
        device(), cudaMemcpyAsync(&count, wrong, sizeof(count), cudaMemcpyDeviceToHost, stream()));
    LOCKSTEP_RETURN_IF_ERROR(Wait());
    if (count == 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(what, " lost ", count, " of ", kWords, " words"));
  }

 private:
  Bench(DeviceMemory memory, OwnedStream stream)
      : memory_(std::move(memory)), stream_(std::move(stream)) {}

  DeviceMemory memory_;
  OwnedStream stream_;
};

// Everything that crosses from `from` to the memory of `to`.
absl::Status ProvePair(const Bench& from, const Bench& to, std::uint32_t seed, bool spoil) {
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
  const CUresult result = driver == nullptr ? CUDA_ERROR_NOT_INITIALIZED
                                            : driver->ctx_enable_peer_access(PrimaryContext(to), 0);
  if (result == CUDA_SUCCESS || result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) {
    return absl::OkStatus();
  }
  return Error(static_cast<cudaError_t>(result), "cuCtxEnablePeerAccess", from);
}

absl::Status ProvePeerAccess(absl::Span<const Device> devices, bool spoil) {
  std::vector<Bench> benches;
  for (const Device device : devices) {
    const bool known = std::any_of(benches.begin(), benches.end(),
                                   [&](const Bench& bench) { return bench.device() == device; });
    if (known) continue;
    LOCKSTEP_ASSIGN_OR_RETURN(Bench bench, Bench::Create(device));
    benches.push_back(std::move(bench));
  }
  std::uint32_t seed = 1;
  for (const Bench& from : benches) {
    for (const Bench& to : benches) {
      if (&from == &to) continue;
      LOCKSTEP_RETURN_IF_ERROR(EnablePeerAccess(from.device(), to.device()));
    }
  }
  for (const Bench& from : benches) {
    for (const Bench& to : benches) {
      if (&from == &to) continue;
      const absl::Status proof = ProvePair(from, to, seed++, spoil);
      if (proof.ok()) continue;
      return absl::UnavailableError(absl::StrCat("from ", from.device().ToString(), " to ",
                                                 to.device().ToString(), ": ", proof.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace lockstep::internal::cuda
