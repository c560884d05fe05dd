// `lockstep train`: a tensor-parallel classifier of images.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_

#include "lockstep/runtime/status.h"
#include "lockstep/tools/lockstep/train/train_options.h"

namespace lockstep::tools {

/// Trains input -> ColumnParallelLinear -> activation -> RowParallelLinear -> softmax
/// cross-entropy, tells per epoch how it went on stdout, and shows its progress on stderr.
/// kNotFound, kInvalidArgument: no such image set, or a bad one. kDataLoss: `verify` found more
/// than rounding.
absl::Status Train(const TrainOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_H_
