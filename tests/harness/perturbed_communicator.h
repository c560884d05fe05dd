// A rank's end of a group that goes wrong on purpose.
#ifndef LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_
#define LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/collective/communicator.h"

namespace lockstep::testing {

enum class FaultKind : unsigned char {
  kFail,         // the call returns kInternal, and the rank never came
  kThrow,        // the call throws std::runtime_error
  kLate,         // the rank comes `delay` late
  kNeverArrive,  // the rank stays away for `delay`, then the call returns kInternal
  kWrongCount,   // the rank asks for one element less
  kWrongDtype,   // the rank asks for another type of the same size
};

/// What goes wrong with a call of one rank: "rank 2 fails at its 5th all-reduce" is
/// {.rank = 2, .at = CollectiveKind::kAllReduce, .nth = 5, .kind = FaultKind::kFail}.
struct Fault {
  int rank = 0;
  /// Calls of this kind are counted; all of them, if there is none.
  std::optional<CollectiveKind> at = {};
  /// From 1.
  int nth = 1;
  FaultKind kind = FaultKind::kFail;
  absl::Duration delay = absl::Milliseconds(10);
};

struct Perturbation {
  std::vector<Fault> faults = {};
  /// Not 0: every call is delayed by chance before and after, differently on each rank and alike
  /// for one seed, so that ranks come in changing orders.
  std::uint64_t seed = 0;
  absl::Duration most_delay = absl::Microseconds(200);
};

/// A Communicator in front of another, for the code under test to use in its place. Where there is
/// none, nothing is in the way: lockstep itself has no injection points. `inner` must outlive it.
class PerturbedCommunicator final : public Communicator {
 public:
  PerturbedCommunicator(Communicator& inner, Perturbation perturbation);

  CommunicatorStats stats() const override { return inner_.stats(); }
  /// The new group's calls are delayed too, and have no faults.
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override;
  absl::Status Fail(absl::Status status) override { return inner_.Fail(std::move(status)); }
  absl::Status Synchronize() override { return inner_.Synchronize(); }

 protected:
  absl::Status Execute(const CollectiveCall& call) override;
  absl::Status Refuse(const CollectiveCall& call, absl::Status error) override;
  absl::Status EnterSideStream() override { return inner_.EnterSideStream(); }
  absl::Status LeaveSideStream() override { return inner_.LeaveSideStream(); }
  absl::Status JoinSideStream() override { return inner_.JoinSideStream(); }

 private:
  // Changes `call`, waits, throws, or returns what the call returns at once.
  absl::Status Suffer(const Fault& fault, CollectiveCall& call);
  void Delay();

  Communicator& inner_;
  // Of a group that was split off.
  std::unique_ptr<Communicator> owned_;
  const Perturbation perturbation_;
  std::mt19937_64 random_;
  // By kind, then all.
  std::array<int, 8> num_calls_ = {};
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_PERTURBED_COMMUNICATOR_H_
