// A rank's end of a group that goes wrong on purpose.
#ifndef LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_
#define LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "lockstep/collective/communicator.h"

namespace lockstep::testing {

enum class FaultKind : unsigned char {
  kFail,         // the call returns kInternal, and the rank never came
  kThrow,        // the call throws std::runtime_error
  kLate,         // the rank comes `delay` late
  kNeverArrive,  // the rank stays away for `delay`, then the call returns kInternal
  kWrongCount,   // the rank asks for one element less; of several rows, one less in each
  kWrongDtype,   // the rank asks for another type of the same size
};

/// What goes wrong with one call of one rank: "rank 2 fails at its 5th all-reduce" is
/// {.rank = 2, .at = CollectiveKind::kAllReduce, .nth = 5, .kind = FaultKind::kFail}.
///
/// A wrong count or type for a call that has none (a barrier, a split, no elements) is refused:
/// kInvalidArgument from that call.
struct Fault {
  int rank = 0;
  /// Counts calls of this kind alone; by default all. Calls that are refused because of the rank's
  /// own tensors do not count.
  std::optional<CollectiveKind> at = {};
  /// Which of them, from 1.
  int nth = 1;
  FaultKind kind = FaultKind::kFail;
  absl::Duration delay = absl::Milliseconds(10);
};

struct Perturbation {
  std::vector<Fault> faults = {};
  /// If not 0, every call is delayed at random before and after, differently on each rank and the
  /// same for one seed, so that the ranks come in changing orders.
  std::uint64_t seed = 0;
  absl::Duration max_delay = absl::Microseconds(200);
};

/// kInvalidArgument: a fault that could never happen (no such rank in a group of `world_size`, nth
/// below 1, a wrong count or type for a barrier or split), or a delay that is negative or infinite.
absl::Status CheckPerturbation(const Perturbation& perturbation, int world_size);

/// Delay number `n` of a rank: 2 k before its call k (from 0, of any kind), 2 k + 1 after it. About
/// half of them are 0, so that ranks also collide; the others are spread over (0, max_delay).
absl::Duration DelayOf(const Perturbation& perturbation, int rank, std::uint64_t n);

/// A Communicator in front of another, for the code under test to use in its place: lockstep itself
/// has no injection points in the path of data. `inner` must outlive it. With a perturbation that
/// CheckPerturbation refuses, every call returns that error.
class PerturbedCommunicator final : public Communicator {
 public:
  PerturbedCommunicator(Communicator& inner, Perturbation perturbation);

  /// How long this end has slept so far, for random delays and for its faults.
  absl::Duration delayed() const { return delayed_; }

  CommunicatorStats stats() const override { return inner_.stats(); }
  /// The new group's calls are delayed too, each end's in its own way, but have no faults.
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override;
  absl::Status Fail(absl::Status status) override { return inner_.Fail(std::move(status)); }
  absl::Status Synchronize() override { return inner_.Synchronize(); }

 protected:
  absl::Status Execute(const CollectiveCall& call) override;
  absl::Status Refuse(const CollectiveCall& call, absl::Status error) override;
  absl::Status JoinSideStream() override { return JoinSideStreamOn(inner_); }

 private:
  // Before each call, which it may change: counts it, delays it, and does what its faults ask for.
  absl::Status Begin(CollectiveCall& call);
  void End();
  absl::Status Inject(const Fault& fault, CollectiveCall& call);
  absl::Status AskForLess(CollectiveCall& call);
  void Sleep(absl::Duration time);

  Communicator& inner_;
  // Of a group that was split off.
  std::unique_ptr<Communicator> owned_;
  const Perturbation perturbation_;
  const absl::Status usable_;
  // By kind.
  std::array<std::uint64_t, 7> num_calls_ = {};
  std::uint64_t num_all_calls_ = 0;
  absl::Duration delayed_;
  // The details of a call that asks for less, and an all-to-all's counts.
  CallDetails details_;
  std::vector<std::int64_t> send_counts_;
  std::vector<std::int64_t> receive_counts_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_
