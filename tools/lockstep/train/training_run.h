// One training run over a group of ranks.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAINING_RUN_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAINING_RUN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/executor.h"
#include "lockstep/tools/lockstep/train/idx.h"

namespace lockstep::tools {

/// What `lockstep train` is asked to do.
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

struct EpochResult {
  int epoch = 0;             // from 1
  double loss = 0;           // mean over the training images, while they were trained on
  double learning_rate = 0;  // of its last step
  double accuracy = 0;       // share of the test images, after the epoch
  double samples_per_s = 0;
  // Shares of the threads' training time, averaged over the ranks; they add up to 1. On GPUs, where
  // calls return once their work is queued, they say nothing about the devices.
  double computing = 0;
  double reducing = 0;
  double waiting = 0;
};

/// What rank 0 reports as it goes, on its own thread.
struct TrainingObserver {
  std::function<void(int epoch, double share_done, double loss)> on_step;
  std::function<void(const EpochResult&)> on_epoch;
};

struct TrainingResult {
  std::vector<EpochResult> epochs;
  std::vector<double> weights;  // all full parameters, one after the other
};

/// Trains on all ranks of `executor`, not on those that the options name.
absl::StatusOr<TrainingResult> RunTraining(Executor& executor, const TrainOptions& options,
                                           const Dataset& train, const Dataset& test,
                                           const TrainingObserver& observer);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAINING_RUN_H_
