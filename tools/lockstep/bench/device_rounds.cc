#include "lockstep/tools/lockstep/bench/device_rounds.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include "lockstep/runtime/graph.h"
#include "lockstep/tools/lockstep/bench/device_timer.h"

namespace lockstep::tools {
namespace {

// Long enough that the skew of the ranks' starts, a few microseconds, does not count; short enough
// that contestants alternate before the machine changes.
constexpr double kLeastRoundMicroseconds = 2e3;
constexpr double kRoundMicroseconds = 8e3;
// More makes graphs slow to build.
constexpr int kMaxCalls = 200;
constexpr int kProbeCalls = 10;

}  // namespace

// One rank's side of one contestant.
class DeviceRounds::Contestant {
 public:
  Contestant(Worker& worker, const Queue& queue, DeviceTimer timer)
      : worker_(worker), queue_(queue), timer_(std::move(timer)) {}

  absl::Status WarmUp(int calls) {
    for (int i = 0; i < calls; ++i) LOCKSTEP_RETURN_IF_ERROR(queue_());
    return worker_.stream().Synchronize();
  }

  // Decides how many calls a round has, from what one takes on the slowest rank.
  absl::Status Plan(double microseconds, const DeviceRoundsOptions& options) {
    const double each = std::max(microseconds, 0.1);
    calls_ = options.calls > 0 ? options.calls
                               : static_cast<int>(std::clamp(kRoundMicroseconds / each, 1.0,
                                                             static_cast<double>(kMaxCalls)));
    if (options.calls == 0) {
      repeats_ = std::max(1, static_cast<int>(std::ceil(kLeastRoundMicroseconds / each / calls_)));
    }
    if (!options.graph) return absl::OkStatus();
    LOCKSTEP_ASSIGN_OR_RETURN(graph_, Graph::Capture(worker_, [this] { return QueueAll(); }));
    return absl::OkStatus();
  }

  // Microseconds of one call.
  absl::StatusOr<double> Round(Communicator& comm, double rest) {
    LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
    LOCKSTEP_RETURN_IF_ERROR(timer_.Start());
    for (int i = 0; i < repeats_; ++i) {
      LOCKSTEP_RETURN_IF_ERROR(graph_.has_value() ? graph_->Launch() : QueueAll());
    }
    LOCKSTEP_RETURN_IF_ERROR(timer_.Stop());
    LOCKSTEP_ASSIGN_OR_RETURN(const double microseconds, timer_.Microseconds());
    std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(rest * microseconds));
    return microseconds / calls_ / repeats_;
  }

 private:
  absl::Status QueueAll() {
    for (int i = 0; i < calls_; ++i) LOCKSTEP_RETURN_IF_ERROR(queue_());
    return absl::OkStatus();
  }

  Worker& worker_;
  const Queue& queue_;
  DeviceTimer timer_;
  std::optional<Graph> graph_;
  int calls_ = kProbeCalls;
  int repeats_ = 1;
};

DeviceRounds::DeviceRounds(int world_size, int contestants, const DeviceRoundsOptions& options)
    : options_(options), records_(static_cast<std::size_t>(contestants)) {
  for (Record& record : records_) {
    record.probes.resize(static_cast<std::size_t>(world_size));
    record.rounds_of_rank.resize(static_cast<std::size_t>(world_size));
  }
}

absl::Status DeviceRounds::Measure(Worker& worker, Communicator& comm,
                                   const std::vector<Queue>& contestants) {
  const auto rank = static_cast<std::size_t>(worker.rank());
  std::vector<Contestant> sides;
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(auto timer, DeviceTimer::Create(worker.stream()));
    Contestant& side = sides.emplace_back(worker, contestants[i], std::move(timer));
    std::vector<double>& probes = records_[i].probes;
    LOCKSTEP_RETURN_IF_ERROR(side.WarmUp(options_.warmup));
    LOCKSTEP_ASSIGN_OR_RETURN(probes[rank], side.Round(comm, options_.rest));
    LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
    // All ranks come to the same number.
    LOCKSTEP_RETURN_IF_ERROR(side.Plan(*std::max_element(probes.begin(), probes.end()), options_));
  }
  // The first rounds of graphs are slower, and do not count.
  for (int round = -1; round < options_.rounds; ++round) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const double microseconds, sides[i].Round(comm, options_.rest));
      if (round >= 0) records_[i].rounds_of_rank[rank].push_back(microseconds);
    }
  }
  return AwaitAll(comm);
}

absl::Status AwaitAll(Communicator& comm) {
  LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
  return comm.Barrier();
}

std::vector<double> DeviceRounds::SlowestRank(int contestant) const {
  return SlowestOf(records_[contestant].rounds_of_rank);
}

std::vector<double> SlowestOf(const std::vector<std::vector<double>>& ranks) {
  std::vector<double> slowest = ranks[0];
  for (const std::vector<double>& rank : ranks) {
    for (std::size_t i = 0; i < slowest.size(); ++i) slowest[i] = std::max(slowest[i], rank[i]);
  }
  return slowest;
}

}  // namespace lockstep::tools
