// `lockstep train`: a tensor-parallel classifier of images.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_H_

#include <cstdint>
#include <string>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/executor.h"

namespace lockstep::tools {

struct TrainOptions {
  Executor::Options executor;
  std::int64_t hidden = 0;
  int epochs = 0;
  std::int64_t batch = 0;
  bool adamw = false;
  Activation activation = Activation::kRelu;
  double learning_rate = 0;
  DType dtype = DType::kFloat32;
  std::uint64_t seed = 0;
  std::string data;
  bool json = false;
  bool verify = false;
};

/// Trains input -> ColumnParallelLinear -> activation -> RowParallelLinear -> softmax
/// cross-entropy, tells per epoch how it went on stdout, and shows its progress on stderr.
/// kNotFound, kInvalidArgument: no such image set, or a bad one. kDataLoss: `verify` found more
/// than rounding.
absl::Status Train(const TrainOptions& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_H_
