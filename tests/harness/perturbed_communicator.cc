#include "lockstep/tests/harness/perturbed_communicator.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/time/clock.h"

namespace lockstep::testing {
namespace {

DType OtherOfTheSize(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return DType::kInt32;
    case DType::kInt32:
      return DType::kFloat32;
    case DType::kFloat64:
      return DType::kInt64;
    case DType::kInt64:
      return DType::kFloat64;
    case DType::kFloat16:
      return DType::kBFloat16;
    case DType::kBFloat16:
      break;
  }
  return DType::kFloat16;
}

bool ChangesTheCall(FaultKind kind) {
  return kind == FaultKind::kWrongCount || kind == FaultKind::kWrongDtype;
}

// SplitMix64 (Steele, Lea and Flood, 2014): near numbers become far ones.
std::uint64_t Mix(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

bool IsDelay(absl::Duration delay) {
  return delay >= absl::ZeroDuration() && delay < absl::InfiniteDuration();
}

absl::Status CheckFault(const Fault& fault, int world_size) {
  if (fault.rank < 0 || fault.rank >= world_size) {
    return absl::InvalidArgumentError(absl::StrCat("a fault of rank ", fault.rank,
                                                   " in a group of ", world_size,
                                                   "; it must be from 0 to ", world_size - 1));
  }
  if (fault.nth < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a fault of rank ", fault.rank,
                                                   " at call number ", fault.nth,
                                                   "; they are counted from 1"));
  }
  if (!IsDelay(fault.delay)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a fault of rank ", fault.rank, " with a delay of ",
                     absl::FormatDuration(fault.delay), "; it must be finite, and at least 0"));
  }
  if (fault.at.has_value() && IsMeeting(*fault.at) && ChangesTheCall(fault.kind)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a fault of rank ", fault.rank, " with a wrong count or type at a ",
                     Name(*fault.at), ", which has neither; take a call that moves data"));
  }
  return absl::OkStatus();
}

// One less in the first count that is not 0.
const std::int64_t* OneLess(const std::int64_t* counts, int world_size,
                            std::vector<std::int64_t>& kept) {
  if (counts == nullptr) return nullptr;
  kept.assign(counts, counts + world_size);
  const auto first =
      std::find_if(kept.begin(), kept.end(), [](std::int64_t count) { return count > 0; });
  if (first != kept.end()) *first -= 1;
  return kept.data();
}

}  // namespace

absl::Status CheckPerturbation(const Perturbation& perturbation, int world_size) {
  for (const Fault& fault : perturbation.faults) {
    LOCKSTEP_RETURN_IF_ERROR(CheckFault(fault, world_size));
  }
  if (IsDelay(perturbation.max_delay)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("delays of at most ",
                                                 absl::FormatDuration(perturbation.max_delay),
                                                 "; it must be finite, and at least 0"));
}

absl::Duration DelayOf(const Perturbation& perturbation, int rank, std::uint64_t n) {
  if (perturbation.seed == 0) return absl::ZeroDuration();
  const std::uint64_t draw =
      Mix(Mix(Mix(perturbation.seed) + static_cast<std::uint64_t>(rank)) + n);
  if (draw % 2 == 0) return absl::ZeroDuration();
  return perturbation.max_delay * (static_cast<double>(draw >> 11) * 0x1p-53);
}

PerturbedCommunicator::PerturbedCommunicator(Communicator& inner, Perturbation perturbation)
    : Communicator(inner.rank(), inner.world_size(), DeviceOf(inner)),
      inner_(inner),
      perturbation_(std::move(perturbation)),
      usable_(CheckPerturbation(perturbation_, inner.world_size())) {}

absl::StatusOr<std::unique_ptr<Communicator>> PerturbedCommunicator::Split(int color, int key) {
  CollectiveCall call = {.kind = CollectiveKind::kSplit};
  LOCKSTEP_RETURN_IF_ERROR(Begin(call));
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> part, inner_.Split(color, key));
  End();
  if (part == nullptr) return nullptr;
  // Of two groups, ranks with one number draw different delays; 0 would mean none.
  const std::uint64_t seed =
      Mix(Mix(perturbation_.seed + num_all_calls_) + static_cast<std::uint64_t>(rank())) | 1;
  auto perturbed = std::make_unique<PerturbedCommunicator>(
      *part, Perturbation{.seed = perturbation_.seed == 0 ? 0 : seed,
                          .max_delay = perturbation_.max_delay});
  perturbed->owned_ = std::move(part);
  return perturbed;
}

absl::Status PerturbedCommunicator::Execute(const CollectiveCall& call) {
  CollectiveCall mine = call;
  LOCKSTEP_RETURN_IF_ERROR(Begin(mine));
  absl::Status status = ExecuteOn(inner_, mine);
  End();
  return status;
}

absl::Status PerturbedCommunicator::Refuse(const CollectiveCall& call, absl::Status error) {
  return RefuseOn(inner_, call, std::move(error));
}

absl::Status PerturbedCommunicator::Begin(CollectiveCall& call) {
  LOCKSTEP_RETURN_IF_ERROR(usable_);
  const CollectiveKind kind = call.kind;
  const std::uint64_t of_kind = ++num_calls_[static_cast<std::size_t>(kind)];
  const std::uint64_t of_all = ++num_all_calls_;
  Sleep(DelayOf(perturbation_, rank(), 2 * (of_all - 1)));
  for (const Fault& fault : perturbation_.faults) {
    if (fault.rank != rank() || (fault.at.has_value() && *fault.at != kind)) continue;
    if ((fault.at.has_value() ? of_kind : of_all) != static_cast<std::uint64_t>(fault.nth))
      continue;
    LOCKSTEP_RETURN_IF_ERROR(Inject(fault, call));
  }
  return absl::OkStatus();
}

void PerturbedCommunicator::End() { Sleep(DelayOf(perturbation_, rank(), 2 * num_all_calls_ - 1)); }

absl::Status PerturbedCommunicator::Inject(const Fault& fault, CollectiveCall& call) {
  const std::string what = absl::StrCat("injected fault: rank ", rank(), " at its ",
                                        call.Describe(), " number ", fault.nth);
  if (ChangesTheCall(fault.kind) && IsMeeting(call.kind)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " cannot ask for another count or type: it has neither"));
  }
  switch (fault.kind) {
    case FaultKind::kFail:
      return absl::InternalError(what);
    case FaultKind::kThrow:
      throw std::runtime_error(what);
    case FaultKind::kLate:
      Sleep(fault.delay);
      break;
    case FaultKind::kNeverArrive:
      Sleep(fault.delay);
      return absl::InternalError(what + " never arrived");
    case FaultKind::kWrongCount:
      return AskForLess(call);
    case FaultKind::kWrongDtype:
      call.dtype = OtherOfTheSize(call.dtype);
      break;
  }
  return absl::OkStatus();
}

absl::Status PerturbedCommunicator::AskForLess(CollectiveCall& call) {
  if (call.in_width == 0 && call.out_width == 0) {
    return absl::InvalidArgumentError(absl::StrCat("injected fault: rank ", rank(), " at its ",
                                                   call.Describe(),
                                                   " cannot ask for less: it has no elements"));
  }
  call.in_width = std::max<std::int64_t>(call.in_width - 1, 0);
  call.out_width = std::max<std::int64_t>(call.out_width - 1, 0);
  if (call.details == nullptr) return absl::OkStatus();
  details_ = *call.details;
  details_.send_counts = OneLess(details_.send_counts, world_size(), send_counts_);
  details_.receive_counts = OneLess(details_.receive_counts, world_size(), receive_counts_);
  call.details = &details_;
  return absl::OkStatus();
}

void PerturbedCommunicator::Sleep(absl::Duration time) {
  if (time == absl::ZeroDuration()) return;
  absl::SleepFor(time);
  delayed_ += time;
}

}  // namespace lockstep::testing
