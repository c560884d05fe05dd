#include "lockstep/layers/overlap.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "lockstep/layers/peers.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep::internal {
namespace {

absl::StatusOr<double> Microseconds(Communicator& comm, const OverlapChoice& way,
                                    OverlapChoices::Run run) {
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
  const auto begin = std::chrono::steady_clock::now();
  LOCKSTEP_RETURN_IF_ERROR(run(way));
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

}  // namespace

std::int64_t RowsPerWave(int multiprocessors, std::int64_t columns) {
  // The tiles of cuBLASLt's large products of 16-bit types, one on a multiprocessor.
  constexpr std::int64_t kTileRows = 128;
  constexpr std::int64_t kTileColumns = 256;
  const std::int64_t places = multiprocessors - kBesideProduct;
  if (places <= 0 || columns <= 0) return 0;
  const std::int64_t tiles = (columns + kTileColumns - 1) / kTileColumns;
  return kTileRows * std::max<std::int64_t>(1, places / tiles);
}

std::int64_t WavesToOverlap(int multiprocessors, DType dtype, std::int64_t rows,
                            std::int64_t columns) {
  constexpr std::int64_t kMinBytes = 8 << 20;
  const std::int64_t wave = RowsPerWave(multiprocessors, columns);
  if (wave == 0 || !IsReducedPrecision(dtype)) return 0;
  if (rows * columns * static_cast<std::int64_t>(SizeOf(dtype)) < kMinBytes) return 0;
  return rows < 2 * wave ? 0 : rows / wave;
}

std::vector<std::int64_t> OverlapParts(std::int64_t rows, std::int64_t wave, bool equal) {
  std::vector<std::int64_t> parts;
  std::int64_t behind = 0;
  while (behind < rows) {
    const std::int64_t left = rows - behind;
    const std::int64_t part = equal ? wave : std::max(wave, behind);
    // Less than a wave is no part of its own.
    parts.push_back(left < part + wave ? left : part);
    behind += parts.back();
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

absl::Status MaxOverRanks(Worker& worker, Communicator& comm, absl::Span<double> values) {
  const Tensor on_host =
      Tensor::View(values.data(), {static_cast<std::int64_t>(values.size())}, DType::kFloat64);
  Tensor shared;
  LOCKSTEP_RETURN_IF_ERROR(Alone(comm, [&]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(shared, worker.Empty(on_host.shape(), DType::kFloat64));
    return Copy(worker, on_host, shared);
  }));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(shared, shared, ReduceOp::kMax));
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  return Alone(comm, [&] { return Copy(worker, shared, on_host); });
}

absl::StatusOr<int> LeastMultiprocessors(Worker& worker, Communicator& comm) {
  if (worker.device().is_cpu() || comm.world_size() == 1) return 0;
  double fewest = -NumMultiprocessors(worker.device());
  LOCKSTEP_RETURN_IF_ERROR(MaxOverRanks(worker, comm, absl::MakeSpan(&fewest, 1)));
  return static_cast<int>(-fewest);
}

OverlapChoice OverlapChoices::Find(std::int64_t waves) const {
  const auto found = known_.find(KeyOf(waves));
  return found == known_.end() ? OverlapChoice{} : found->second;
}

absl::Status OverlapChoices::Measure(Worker& worker, Communicator& comm, std::int64_t waves,
                                     absl::Span<const OverlapChoice> ways, Run run) {
  constexpr int kRounds = 4;  // the first of which loads and chooses what the others use
  std::vector<double> times(ways.size(), std::numeric_limits<double>::infinity());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const double us, Microseconds(comm, ways[i], run));
      if (round > 0) times[i] = std::min(times[i], us);
    }
  }
  LOCKSTEP_RETURN_IF_ERROR(MaxOverRanks(worker, comm, absl::MakeSpan(times)));
  const auto best = std::min_element(times.begin(), times.end());
  OverlapChoice choice = ways[static_cast<std::size_t>(best - times.begin())];
  choice.us = *best;
  choice.sequence_us = times.front();
  Remember(waves, choice);
  return absl::OkStatus();
}

}  // namespace lockstep::internal
