// `lockstep train`: it learns, what it reports is so, and --verify judges.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/tools/lockstep/train/verify.h"
#include "lockstep/tools/tests/image_set.h"
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

using lockstep::testing::Says;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST_CASE(
    "train learns, and as the same network at every number of ranks, even where the sizes do not "
    "divide") {
  const Sandbox sandbox;
  WriteImageSet(sandbox.path(), "train", 1000, 1);
  WriteImageSet(sandbox.path(), "t10k", 300, 2);
  std::vector<double> losses;
  for (const char* ranks : {"1", "2", "3", "7"}) {
    const Outcome outcome = sandbox.Run(absl::StrCat("train --devices=cpu --ranks=", ranks,
                                                     " --hidden=25 --batch=48 --epochs=3 --verify ",
                                                     "--format=json --data=."));
    const auto document = Document(outcome);
    CHECK(outcome.err.empty());
    const auto& last = document["epochs"].back();
    CHECK(last["accuracy"] > 0.95);
    losses.push_back(last["loss"]);
    CHECK(document["verify"]["largest_weight_difference"] < 1e-5);
  }
  for (const double loss : losses) CHECK(std::abs(loss - losses[0]) < 1e-6);
}

TEST_CASE("train tells its progress in plain lines where stderr is no terminal") {
  const Sandbox sandbox;
  WriteImageSet(sandbox.path(), "train", 400, 1);
  WriteImageSet(sandbox.path(), "t10k", 100, 2);
  for (const char* dtype : {"bfloat16", "float16"}) {
    const Outcome outcome = sandbox.Run(absl::StrCat(
        "train --devices=cpu --ranks=2 --hidden=16 --batch=10 --epochs=2 --optimizer=adamw ",
        "--activation=relu --dtype=", dtype, " --data=."));
    INFO(outcome.out << outcome.err);
    CHECK(outcome.exit_code == 0);
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 20);
    CHECK(outcome.err.find("epoch 2 of 2: 100 %") != std::string::npos);
    CHECK(outcome.err.find('\r') == std::string::npos);
  }
}

TEST_CASE("train --verify judges the losses and weights of every type, and NaN is no agreement") {
  const Sandbox sandbox;
  WriteImageSet(sandbox.path(), "train", 400, 1);
  WriteImageSet(sandbox.path(), "t10k", 100, 2);
  for (const char* dtype : {"float32", "bfloat16", "float16"}) {
    for (const char* activation : {"gelu", "relu"}) {
      const std::string arguments = absl::StrCat(
          "train --devices=cpu --ranks=2 --hidden=16 --batch=40 --epochs=2 --verify --data=. ",
          "--dtype=", dtype, " --activation=", activation);
      const auto right = Document(sandbox.Run(arguments + " --format=json"));
      CHECK(right["verify"]["passed"] == true);
      CHECK(right["verify"]["largest_loss_difference"] <=
            right["verify"]["allowed_loss_difference"]);
      CHECK(right["verify"]["largest_weight_difference"] <=
            right["verify"]["allowed_weight_difference"]);
      const std::string diverging = arguments + " --learning_rate=1e30";
      const Outcome table = sandbox.Run(diverging);
      INFO(dtype << " " << activation << "\n" << table.out << table.err);
      CHECK(table.exit_code == 1);
      CHECK(table.out.find("losses differ by at most nan") != std::string::npos);
      CHECK(table.err.find("verify: losses differ by nan") != std::string::npos);
      const Outcome json = sandbox.Run(diverging + " --format=json");
      CHECK(json.exit_code == 1);
      CHECK(nlohmann::json::parse(json.out)["verify"]["passed"] == false);
    }
  }
}

TEST_CASE("a run is compared with another by its largest difference, of losses and of weights") {
  const auto run = [](std::vector<double> losses, std::vector<double> weights) {
    TrainingResult result;
    for (const double loss : losses) result.epochs.push_back({.loss = loss});
    result.weights = std::move(weights);
    return result;
  };
  const TrainingResult right = run({2, 1}, {0.5, -0.25, 4});
  CHECK(Compare(right, right).loss == 0);
  CHECK(Compare(right, right).weight == 0);
  CHECK(Compare(run({2.5, 1.25}, {0.5, -0.25, 4}), right).loss == 0.5);
  CHECK(Compare(run({2, 0.25}, {0.5, -0.25, 4}), right).loss == 0.75);
  CHECK(Compare(run({2, 1}, {0.5, -1.25, 4.5}), right).weight == 1);
  CHECK(Compare(run({2, 1}, {0.5, -0.25, 6}), right).weight == 2);
  for (const double bad : {kNan, kInfinity, -kInfinity}) {
    for (const TrainingResult& other : {run({bad, 1}, {bad, -0.25, 4}), right}) {
      // A NaN of the first is not forgotten over the second, nor the one of both taken for equal.
      const TrainingResult spoiled = run({bad, 1}, {bad, -0.25, 4});
      CHECK_FALSE(std::isfinite(Compare(spoiled, other).loss));
      CHECK_FALSE(std::isfinite(Compare(other, spoiled).weight));
    }
  }
  CHECK(Compare(run({2}, {0.5, -0.25, 4}), right).loss == kInfinity);
  CHECK(Compare(run({2, 1}, {0.5, -0.25}), right).weight == kInfinity);
}

TEST_CASE("a difference is judged by both bounds, and told with its bound") {
  const Difference allowed{.loss = 0.5, .weight = 2};
  CHECK(Judge({.loss = 0.5, .weight = 2}, allowed).ok());
  const absl::Status losses = Judge({.loss = 0.75, .weight = 0}, allowed);
  CHECK(absl::IsDataLoss(losses));
  CHECK(Says(losses, "losses differ by 0.75 from those of one rank; rounding explains 0.5"));
  CHECK(Says(Judge({.loss = 0, .weight = 3}, allowed), "weights differ by 3 "));
  CHECK_FALSE(Judge({.loss = kNan, .weight = 0}, allowed).ok());
  CHECK_FALSE(Judge({.loss = 0, .weight = kNan}, allowed).ok());
  CHECK_FALSE(Judge({.loss = kInfinity, .weight = 0}, allowed).ok());
}

// Twenty pixels an image, which tell the label.
Dataset Images(std::int64_t count, const std::function<int(std::int64_t)>& label) {
  Dataset set{.num_images = count, .num_pixels = 20, .images = {}, .labels = {}};
  for (std::int64_t image = 0; image < count; ++image) {
    set.labels.push_back(label(image));
    for (int pixel = 0; pixel < 20; ++pixel)
      set.images.push_back(pixel % 10 == label(image) ? 1.0f
                                                      : -0.1f * static_cast<float>(image % 3));
  }
  return set;
}

TrainOptions Small() {
  return {.executor = {.devices = {Device::Cpu()}, .world_size = 2},
          .hidden = 8,
          .epochs = 1,
          .batch = 40,
          .activation = Activation::kGelu,
          .learning_rate = 0.05,
          .seed = 1,
          .data = ""};
}

absl::StatusOr<TrainingResult> Train(const TrainOptions& options, const Dataset& train,
                                     const Dataset& test) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create(options.executor));
  return RunTraining(
      *executor, options, train, test,
      {.on_step = [](int, double, double) {}, .on_epoch = [](const EpochResult&) {}});
}

TEST_CASE(
    "train --verify trains anew with one rank, and finds a weight and a loss that were changed") {
  const Dataset set = Images(100, [](std::int64_t image) { return static_cast<int>(image % 10); });
  const TrainOptions options = Small();
  auto result = Train(options, set, set);
  REQUIRE_OK(result);
  const TrainingObserver observer{.on_step = [](int, double, double) {},
                                  .on_epoch = [](const EpochResult&) {}};
  const auto difference = [&](const TrainingResult& sharded) {
    return *Verify(options, set, set, sharded, observer);
  };
  CHECK(Judge(difference(*result), LargestAllowed(options)).ok());
  TrainingResult spoiled = *result;
  spoiled.weights.back() += 1;
  CHECK(std::abs(difference(spoiled).weight - 1) < 0.01);
  CHECK_FALSE(Judge(difference(spoiled), LargestAllowed(options)).ok());
  spoiled = *result;
  spoiled.epochs[0].loss += 1;
  CHECK_FALSE(Judge(difference(spoiled), LargestAllowed(options)).ok());
  TrainOptions otherwise = options;
  otherwise.seed = 2;
  CHECK_FALSE(Judge(difference(*Train(otherwise, set, set)), LargestAllowed(options)).ok());
}

TEST_CASE("accuracy counts every test image once, over several batches") {
  const Dataset threes = Images(200, [](std::int64_t) { return 3; });
  Dataset mixed = Images(1201, [](std::int64_t) { return 3; });
  for (std::size_t i = 300; i < 1201; ++i) mixed.labels[i] = 4;
  const auto result = Train(Small(), threes, mixed);
  REQUIRE_OK(result);
  CHECK(result->epochs[0].accuracy == 300.0 / 1201);
}

TEST_CASE("an epoch's loss is the mean over its images, whatever the batches") {
  const Dataset set = Images(100, [](std::int64_t image) { return static_cast<int>(image % 7); });
  TrainOptions options = Small();
  options.learning_rate = 1e-30;
  std::vector<double> losses;
  for (const int batch : {100, 48, 1}) {
    options.batch = batch;
    losses.push_back(Train(options, set, set)->epochs[0].loss);
    CHECK(std::abs(losses.back() - losses[0]) < 1e-6);
  }
  CHECK(std::abs(losses[0] - std::log(10)) < 1);
}

TEST_CASE("step sizes fall in a line, from what was asked for to nearly nothing") {
  const Dataset set = Images(100, [](std::int64_t image) { return static_cast<int>(image % 7); });
  TrainOptions options = Small();
  options.epochs = 4;
  const auto result = Train(options, set, set);
  REQUIRE_OK(result);
  for (int epoch = 1; epoch <= 4; ++epoch) {
    const double expected = 0.05 * (1 - epoch / 4.01);
    CHECK(result->epochs[epoch - 1].epoch == epoch);
    CHECK(std::abs(result->epochs[epoch - 1].learning_rate - expected) < 1e-12);
  }
}

TEST_CASE("sgd carries nine tenths of a step on into the next") {
  const Dataset set = Images(100, [](std::int64_t image) { return static_cast<int>(image % 7); });
  TrainOptions options = Small();
  options.batch = 100;  // the same gradient in each step
  options.epochs = 0;
  const std::vector<double> start = Train(options, set, set)->weights;
  const auto way = [&](int epochs, double learning_rate) {
    options.epochs = epochs;
    options.learning_rate = learning_rate;
    const std::vector<double> end = Train(options, set, set)->weights;
    double sum = 0;
    for (std::size_t i = 0; i < end.size(); ++i) sum += std::abs(end[i] - start[i]);
    return sum;
  };
  // One step of 0.01 / 1.01 of its rate, against three of (1 + 0.9 + ...) times theirs.
  const double once = (1 - 1 / 1.01) * 0.1;
  const double thrice = ((1 - 1 / 3.01) + (1 - 2 / 3.01) * 1.9 + (1 - 3 / 3.01) * 2.71) * 0.001;
  CHECK(std::abs(way(3, 0.001) / way(1, 0.1) * once / thrice - 1) < 0.02);
}

}  // namespace
}  // namespace lockstep::tools
