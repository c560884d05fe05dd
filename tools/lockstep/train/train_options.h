// What `lockstep train` is asked to do.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_OPTIONS_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_OPTIONS_H_

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

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_TRAIN_OPTIONS_H_
