#include "lockstep/tools/lockstep/train.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lockstep/tools/lockstep/bench.h"
#include "lockstep/tools/lockstep/training_run.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

// A bar that moves where stderr is a terminal, else a line per tenth.
class Progress {
 public:
  Progress(std::string label, const TrainOptions& options)
      : label_(std::move(label)),
        epochs_(options.epochs),
        terminal_(isatty(STDERR_FILENO) != 0),
        quiet_(options.json && !terminal_) {}

  void Step(int epoch, double share, double loss) {
    const int now = static_cast<int>(share * (terminal_ ? 50 : 10));
    if (quiet_ || (epoch == epoch_ && now == shown_)) return;
    epoch_ = epoch;
    shown_ = now;
    if (!terminal_) {
      if (now > 0)
        std::fprintf(stderr, "%sepoch %d of %d: %3d %%, loss %.4f\n", label_.c_str(), epoch,
                     epochs_, now * 10, loss);
      return;
    }
    const std::string bar = std::string(static_cast<std::size_t>(now), '#') +
                            std::string(static_cast<std::size_t>(50 - now), '.');
    std::fprintf(stderr, "\r%sepoch %d of %d [%s] loss %.4f ", label_.c_str(), epoch, epochs_,
                 bar.c_str(), loss);
  }
  // Clears the bar, so that a line of the table can take its place.
  void Clear() {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  const std::string label_;
  const int epochs_;
  const bool terminal_;
  const bool quiet_;
  int epoch_ = 0;
  int shown_ = -1;
};

void PrintHead(const TrainOptions& options, int ranks, const Dataset& train, const Dataset& test) {
  std::printf("# %lld training images, %lld test images of %lld pixels from %s\n",
              static_cast<long long>(train.num_images), static_cast<long long>(test.num_images),
              static_cast<long long>(train.num_pixels), options.data.c_str());
  std::printf("# %d ranks on %s, hidden %lld, %s, %s\n", ranks,
              options.executor.devices.front().ToString().c_str(),
              static_cast<long long>(options.hidden), std::string(Name(options.dtype)).c_str(),
              options.adamw ? "adamw" : "sgd");
  std::printf("# %s\n", MachineLine().c_str());
  if (!options.executor.devices.front().is_cpu()) {
    std::printf("# shares of the host threads' time: reducing is queueing the sums there\n");
  }
  std::printf("#%5s %8s %10s %10s %10s %10s %10s\n", "epoch", "loss", "accuracy", "samples/s",
              "computing", "reducing", "waiting");
  std::fflush(stdout);
}

void PrintEpoch(const EpochResult& epoch) {
  std::printf("%6d %8.4f %8.2f %% %10.0f %8.1f %% %8.1f %% %8.1f %%\n", epoch.epoch, epoch.loss,
              100 * epoch.accuracy, epoch.samples_per_s, 100 * epoch.computing,
              100 * epoch.reducing, 100 * epoch.waiting);
  std::fflush(stdout);
}

struct Difference {
  double loss = 0;
  double weight = 0;
};

Difference Compare(const TrainingResult& a, const TrainingResult& b) {
  Difference difference;
  for (std::size_t i = 0; i < a.epochs.size(); ++i) {
    difference.loss = std::max(difference.loss, std::abs(a.epochs[i].loss - b.epochs[i].loss));
  }
  for (std::size_t i = 0; i < a.weights.size(); ++i) {
    difference.weight = std::max(difference.weight, std::abs(a.weights[i] - b.weights[i]));
  }
  return difference;
}

// Trains again with one rank on the first device.
absl::StatusOr<Difference> Verify(TrainOptions options, const Dataset& train, const Dataset& test,
                                  const TrainingResult& sharded) {
  options.executor.devices.resize(1, Device::Cpu());
  options.executor.world_size = 1;
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  Progress progress("one rank, ", options);
  LOCKSTEP_ASSIGN_OR_RETURN(
      const TrainingResult whole,
      RunTraining(*executor, options, train, test,
                  {.on_step = [&](int epoch, double share,
                                  double loss) { progress.Step(epoch, share, loss); },
                   .on_epoch = [&](const EpochResult&) { progress.Clear(); }}));
  return Compare(sharded, whole);
}

nlohmann::json ToJson(const TrainOptions& options, int ranks, const TrainingResult& result) {
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochResult& epoch : result.epochs) {
    epochs.push_back({{"epoch", epoch.epoch},
                      {"loss", epoch.loss},
                      {"accuracy", epoch.accuracy},
                      {"samples_per_s", epoch.samples_per_s},
                      {"computing", epoch.computing},
                      {"reducing", epoch.reducing},
                      {"waiting", epoch.waiting}});
  }
  return {{"ranks", ranks},           {"device", options.executor.devices.front().ToString()},
          {"hidden", options.hidden}, {"dtype", std::string(Name(options.dtype))},
          {"machine", MachineLine()}, {"epochs", epochs}};
}

// What float32 rounding may grow to over a run, far below what any wrong gradient, bias or shard
// gives. GELU is smooth, and carries rounding on as it is; ReLU has a kink, where a last bit
// decides whether a unit is on, and learning amplifies that. Over three epochs of Fashion-MNIST,
// one rank against four: 6e-8 and 3e-5 in the losses (README, "Training").
double MostLossDifference(Activation activation) {
  return activation == Activation::kGelu ? 1e-5 : 1e-2;
}

}  // namespace

absl::Status Train(const TrainOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Dataset train, ReadDataset(options.data, "train"));
  LOCKSTEP_ASSIGN_OR_RETURN(const Dataset test, ReadDataset(options.data, "t10k"));
  if (train.num_pixels != test.num_pixels) {
    return absl::InvalidArgumentError(absl::StrCat(options.data, ": training images have ",
                                                   train.num_pixels, " pixels, test images ",
                                                   test.num_pixels, "; they must have as many"));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  const int ranks = executor->world_size();
  if (!options.json) PrintHead(options, ranks, train, test);
  Progress progress("", options);
  LOCKSTEP_ASSIGN_OR_RETURN(
      const TrainingResult result,
      RunTraining(*executor, options, train, test,
                  {.on_step = [&](int epoch, double share,
                                  double loss) { progress.Step(epoch, share, loss); },
                   .on_epoch =
                       [&](const EpochResult& epoch) {
                         progress.Clear();
                         if (!options.json) PrintEpoch(epoch);
                       }}));
  nlohmann::json document = ToJson(options, ranks, result);
  Difference difference;
  if (options.verify) {
    LOCKSTEP_ASSIGN_OR_RETURN(difference, Verify(options, train, test, result));
    document["verify"] = {{"largest_loss_difference", difference.loss},
                          {"largest_weight_difference", difference.weight}};
    if (!options.json) {
      std::printf(
          "# against one rank: losses differ by at most %.2g, final weights by at most %.2g\n",
          difference.loss, difference.weight);
    }
  }
  if (options.json) std::printf("%s\n", document.dump(2).c_str());
  const double most = MostLossDifference(options.activation);
  if (options.dtype == DType::kFloat32 && !(difference.loss <= most)) {
    return absl::DataLossError(absl::StrCat("verify: losses differ by ", difference.loss,
                                            " from those of one rank; rounding explains ", most,
                                            " at most"));
  }
  return absl::OkStatus();
}

}  // namespace lockstep::tools
