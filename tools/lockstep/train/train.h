// `lockstep train`: a tensor-parallel classifier of images.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_

#include "lockstep/tools/lockstep/train/training_run.h"

namespace lockstep::tools {

/// Trains input -> ColumnParallelLinear -> activation -> RowParallelLinear -> softmax
/// cross-entropy, writes a line per epoch to stdout, and progress to stderr. kNotFound,
/// kInvalidArgument: no such image set, or a bad one. kDataLoss: `verify` found a difference that
/// rounding does not explain.
absl::Status Train(const TrainOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_
