// Rounds of back-to-back work on all ranks' streams, the contestants taking turns.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_ROUNDS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_ROUNDS_H_

#include <functional>
#include <vector>

#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::tools {

struct DeviceRoundsOptions {
  /// Calls are captured once, and replays are timed. On GPUs only.
  bool graph = false;
  int rounds = 0;
  int warmup = 0;
  /// Calls per round; 0: as many as take some milliseconds.
  int calls = 0;
  /// The pause after a round, as a multiple of its time. Without one, a GPU at its power limit
  /// slows down, by an amount that depends on what ran before.
  double rest = 0;
};

/// Times any number of contestants in alternating rounds: the ranks meet, and each queues many
/// calls back to back between two marks on its stream, or on the CPU between two looks at the
/// clock. One object for all ranks of an executor; a rank that fails must end its task, so that the
/// others do not wait for it.
///
///   DeviceRounds rounds(world_size, /*contestants=*/2, options);
///   executor->Run([&](Worker& worker) {
///     return rounds.Measure(worker, comm, {queue_ours, queue_theirs});
///   });
///   Summarize(rounds.SlowestRank(0));
class DeviceRounds {
 public:
  /// Queues one call on the rank's stream.
  using Queue = std::function<absl::Status()>;

  DeviceRounds(int world_size, int contestants, const DeviceRoundsOptions& options);

  /// Called by every rank with its contestants in one order. What they queue is done on return.
  absl::Status Measure(Worker& worker, Communicator& comm, const std::vector<Queue>& contestants);

  /// Microseconds of one call in each round, of the rank that took longest.
  std::vector<double> SlowestRank(int contestant) const;

 private:
  // What one contestant has cost each rank.
  struct Record {
    std::vector<double> probes;                       // [world_size]
    std::vector<std::vector<double>> rounds_of_rank;  // [world_size][rounds]
  };
  class Contestant;

  const DeviceRoundsOptions options_;
  std::vector<Record> records_;
};

/// Returns when no rank's work uses another's memory any more.
absl::Status AwaitAll(Communicator& comm);

/// The longest of all ranks in each of their rounds.
std::vector<double> SlowestOf(const std::vector<std::vector<double>>& ranks);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_BENCH_DEVICE_ROUNDS_H_
