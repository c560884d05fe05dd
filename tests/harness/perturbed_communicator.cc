#include "lockstep/tests/harness/perturbed_communicator.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "absl/time/clock.h"

namespace lockstep::testing {
namespace {

constexpr std::size_t kAll = 7;

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

}  // namespace

PerturbedCommunicator::PerturbedCommunicator(Communicator& inner, Perturbation perturbation)
    : Communicator(inner.rank(), inner.world_size(), inner.device_),
      inner_(inner),
      perturbation_(std::move(perturbation)),
      random_(perturbation_.seed * 1000 + static_cast<std::uint64_t>(inner.rank())) {}

absl::StatusOr<std::unique_ptr<Communicator>> PerturbedCommunicator::Split(int color, int key) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> part, inner_.Split(color, key));
  if (part == nullptr) return nullptr;
  auto perturbed = std::make_unique<PerturbedCommunicator>(
      *part, Perturbation{
                 .faults = {}, .seed = perturbation_.seed, .most_delay = perturbation_.most_delay});
  perturbed->owned_ = std::move(part);
  return perturbed;
}

absl::Status PerturbedCommunicator::Execute(const CollectiveCall& call) {
  CollectiveCall mine = call;
  const auto kind = static_cast<std::size_t>(call.kind);
  num_calls_[kind] += 1;
  num_calls_[kAll] += 1;
  Delay();
  for (const Fault& fault : perturbation_.faults) {
    if (fault.rank != rank() || (fault.at.has_value() && *fault.at != call.kind)) continue;
    if (num_calls_[fault.at.has_value() ? kind : kAll] != fault.nth) continue;
    LOCKSTEP_RETURN_IF_ERROR(Suffer(fault, mine));
  }
  absl::Status status = inner_.Execute(mine);
  Delay();
  return status;
}

absl::Status PerturbedCommunicator::Refuse(const CollectiveCall& call, absl::Status error) {
  return inner_.Refuse(call, std::move(error));
}

absl::Status PerturbedCommunicator::Suffer(const Fault& fault, CollectiveCall& call) {
  const std::string what = absl::StrCat("injected fault: rank ", rank(), " at its ",
                                        call.Describe(), " number ", fault.nth);
  switch (fault.kind) {
    case FaultKind::kFail:
      return absl::InternalError(what);
    case FaultKind::kThrow:
      throw std::runtime_error(what);
    case FaultKind::kLate:
      absl::SleepFor(fault.delay);
      break;
    case FaultKind::kNeverArrive:
      absl::SleepFor(fault.delay);
      return absl::InternalError(what + " never arrived");
    case FaultKind::kWrongCount:
      call.in_width = std::max<std::int64_t>(call.in_width - 1, 0);
      call.out_width = std::max<std::int64_t>(call.out_width - 1, 0);
      break;
    case FaultKind::kWrongDtype:
      call.dtype = OtherOfTheSize(call.dtype);
      break;
  }
  return absl::OkStatus();
}

void PerturbedCommunicator::Delay() {
  if (perturbation_.seed == 0) return;
  // Half of the time none at all, so that ranks collide as well.
  const std::uint64_t draw = random_();
  if (draw % 2 == 0) return;
  absl::SleepFor(perturbation_.most_delay * (static_cast<double>(draw >> 11) * 0x1p-53));
}

}  // namespace lockstep::testing
