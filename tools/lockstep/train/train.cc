#include "lockstep/tools/lockstep/train/train.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "lockstep/tools/lockstep/report.h"
#include "lockstep/tools/lockstep/train/verify.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

// A moving bar where stderr is a terminal, otherwise a line per tenth.
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
        absl::FPrintF(stderr, "%sepoch %d of %d: %3d %%, loss %.4f\n", label_, epoch, epochs_,
                      now * 10, loss);
      return;
    }
    const std::string bar = std::string(static_cast<std::size_t>(now), '#') +
                            std::string(static_cast<std::size_t>(50 - now), '.');
    absl::FPrintF(stderr, "\r%sepoch %d of %d [%s] loss %.4f ", label_, epoch, epochs_, bar, loss);
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
  const Device device = options.executor.devices.front();
  absl::PrintF("# %d training images, %d test images of %d pixels from %s\n", train.num_images,
               test.num_images, train.num_pixels, options.data);
  absl::PrintF("# %d ranks on %s, hidden %d, %s, %s\n", ranks, device.ToString(), options.hidden,
               Name(options.dtype), options.adamw ? "adamw" : "sgd");
  absl::PrintF("# %s\n", MachineLine());
  if (!device.is_cpu())
    absl::PrintF("# shares of the host threads' time: reducing is queueing the sums there\n");
  absl::PrintF("#%5s %8s %10s %10s %10s %10s %10s\n", "epoch", "loss", "accuracy", "samples/s",
               "computing", "reducing", "waiting");
  std::fflush(stdout);
}

void PrintEpoch(const EpochResult& epoch) {
  std::printf("%6d %8.4f %8.2f %% %10.0f %8.1f %% %8.1f %% %8.1f %%\n", epoch.epoch, epoch.loss,
              100 * epoch.accuracy, epoch.samples_per_s, 100 * epoch.computing,
              100 * epoch.reducing, 100 * epoch.waiting);
  std::fflush(stdout);
}

nlohmann::json ToJson(const TrainOptions& options, int ranks, const TrainingResult& result) {
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochResult& epoch : result.epochs) {
    epochs.push_back({{"epoch", epoch.epoch},
                      {"loss", epoch.loss},
                      {"learning_rate", epoch.learning_rate},
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

nlohmann::json ToJson(const Difference& found, const Difference& allowed) {
  return {{"largest_loss_difference", found.loss},
          {"largest_weight_difference", found.weight},
          {"allowed_loss_difference", allowed.loss},
          {"allowed_weight_difference", allowed.weight},
          {"passed", Judge(found, allowed).ok()}};
}

void PrintDifference(const Difference& found, const Difference& allowed) {
  std::printf("# against one rank: losses differ by at most %.2g, final weights by at most %.2g\n",
              found.loss, found.weight);
  std::printf("# allowed: %.2g and %.2g\n", allowed.loss, allowed.weight);
}

absl::Status CheckData(const TrainOptions& options, const Dataset& train, const Dataset& test) {
  if (train.num_pixels != test.num_pixels) {
    return absl::InvalidArgumentError(absl::StrCat(options.data, ": training images have ",
                                                   train.num_pixels, " pixels, test images ",
                                                   test.num_pixels, "; they must have as many"));
  }
  if (options.batch > train.num_images) {
    return absl::InvalidArgumentError(
        absl::StrCat("--batch=", options.batch, " is out of range: it must be from 1 to ",
                     train.num_images, ", the number of training images"));
  }
  return absl::OkStatus();
}

// Shows rank 0's progress, and its epochs if `print`.
TrainingObserver Observe(Progress& progress, bool print) {
  return {.on_step = [&progress](int epoch, double share,
                                 double loss) { progress.Step(epoch, share, loss); },
          .on_epoch =
              [&progress, print](const EpochResult& epoch) {
                progress.Clear();
                if (print) PrintEpoch(epoch);
              }};
}

}  // namespace

absl::Status Train(const TrainOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Dataset train, ReadDataset(options.data, "train"));
  LOCKSTEP_ASSIGN_OR_RETURN(const Dataset test, ReadDataset(options.data, "t10k"));
  LOCKSTEP_RETURN_IF_ERROR(CheckData(options, train, test));
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  const int ranks = executor->world_size();
  if (!options.json) PrintHead(options, ranks, train, test);
  Progress progress("", options);
  LOCKSTEP_ASSIGN_OR_RETURN(
      const TrainingResult result,
      RunTraining(*executor, options, train, test, Observe(progress, !options.json)));
  nlohmann::json document = ToJson(options, ranks, result);
  absl::Status verified;
  if (options.verify) {
    Progress again("one rank, ", options);
    LOCKSTEP_ASSIGN_OR_RETURN(const Difference found, Verify(options, train, test, result,
                                                             Observe(again, /*print=*/false)));
    const Difference allowed = LargestAllowed(options);
    verified = Judge(found, allowed);
    document["verify"] = ToJson(found, allowed);
    if (!options.json) PrintDifference(found, allowed);
  }
  if (options.json) std::printf("%s\n", document.dump(2).c_str());
  return verified;
}

}  // namespace lockstep::tools
