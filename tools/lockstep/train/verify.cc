#include "lockstep/tools/lockstep/train/verify.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lockstep::tools {
namespace {

// The larger of the two; NaN is larger than everything.
double Larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

absl::Status WithinOf(absl::string_view what, double found, double allowed) {
  if (found <= allowed) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("verify: ", what, " differ by ", found,
                                          " from those of one rank; rounding explains ", allowed,
                                          " at most"));
}

}  // namespace

Difference Compare(const TrainingResult& a, const TrainingResult& b) {
  Difference difference;
  if (a.epochs.size() != b.epochs.size() || a.weights.size() != b.weights.size()) {
    difference.loss = difference.weight = std::numeric_limits<double>::infinity();
    return difference;
  }
  for (std::size_t i = 0; i < a.epochs.size(); ++i)
    difference.loss = Larger(difference.loss, std::abs(a.epochs[i].loss - b.epochs[i].loss));
  for (std::size_t i = 0; i < a.weights.size(); ++i)
    difference.weight = Larger(difference.weight, std::abs(a.weights[i] - b.weights[i]));
  return difference;
}

Difference LargestAllowed(const TrainOptions& options) {
  // Shards round their parts of a sum before they are added up.
  if (IsReducedPrecision(options.dtype)) return {.loss = 0.05, .weight = 0.5};
  // GELU is smooth, so rounding stays small; ReLU has a kink, where the last bit decides whether a
  // unit is on, and learning amplifies that. Over three epochs of Fashion-MNIST, one rank against
  // four: 6e-8 and 3e-5 in the losses (tools/lockstep/README.md).
  if (options.activation == Activation::kGelu) return {.loss = 1e-5, .weight = 1e-2};
  return {.loss = 1e-2, .weight = 0.5};
}

absl::Status Judge(const Difference& found, const Difference& allowed) {
  LOCKSTEP_RETURN_IF_ERROR(WithinOf("losses", found.loss, allowed.loss));
  return WithinOf("final weights", found.weight, allowed.weight);
}

absl::StatusOr<Difference> Verify(TrainOptions options, const Dataset& train, const Dataset& test,
                                  const TrainingResult& sharded, const TrainingObserver& observer) {
  options.executor.devices.resize(1, Device::Cpu());
  options.executor.world_size = 1;
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  LOCKSTEP_ASSIGN_OR_RETURN(const TrainingResult whole,
                            RunTraining(*executor, options, train, test, observer));
  return Compare(sharded, whole);
}

}  // namespace lockstep::tools
