// `lockstep train --verify`: whether several ranks train as one does.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_

#include "lockstep/tools/lockstep/train/training_run.h"

namespace lockstep::tools {

/// The largest difference between two runs, or the largest allowed: in an epoch's loss, and in a
/// weight.
struct Difference {
  double loss = 0;
  double weight = 0;
};

/// Not finite if a value of either run is not, or if the runs have different numbers of values.
Difference Compare(const TrainingResult& a, const TrainingResult& b);

/// What rounding may amount to over such a run, far below the effect of a wrong gradient, bias or
/// shard.
Difference LargestAllowed(const TrainOptions& options);

/// kDataLoss, with both numbers, where `found` is not within `allowed`.
absl::Status Judge(const Difference& found, const Difference& allowed);

/// Trains again with one rank on the first device, and compares `sharded` with that.
absl::StatusOr<Difference> Verify(TrainOptions options, const Dataset& train, const Dataset& test,
                                  const TrainingResult& sharded, const TrainingObserver& observer);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_
