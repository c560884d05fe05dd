// `lockstep train --verify`: whether a run over several ranks is the run of one.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_

#include "lockstep/tools/lockstep/train/training_run.h"

namespace lockstep::tools {

/// The largest of two runs, or the largest that is allowed: of an epoch's loss, and of a weight.
struct Difference {
  double loss = 0;
  double weight = 0;
};

/// Not finite where a value of either run is not, or where one run has a value more.
Difference Compare(const TrainingResult& a, const TrainingResult& b);

/// What rounding may grow to over such a run, far below what a wrong gradient, bias or shard gives.
Difference LargestAllowed(const TrainOptions& options);

/// kDataLoss, with both numbers, where `found` is not within `allowed`.
absl::Status Judge(const Difference& found, const Difference& allowed);

/// Trains again with one rank on the first device, and compares `sharded` with that.
absl::StatusOr<Difference> Verify(TrainOptions options, const Dataset& train, const Dataset& test,
                                  const TrainingResult& sharded, const TrainingObserver& observer);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_VERIFY_H_
