// The lockstep program from outside: what it says, and its exit code.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "lockstep/tests/tools/sandbox.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {
namespace {

TEST_CASE("bad input is one clear line and exit code 2") {
  const Sandbox sandbox;
  CheckRefused(sandbox, "trane",
               "unknown verb \"trane\"; there are train, bench, check, info and help");
  CheckRefused(sandbox, "train --epoch=3", "unknown flag --epoch; did you mean --epochs?");
  CheckRefused(sandbox, "train --no_such_thing_at_all", "unknown flag --no_such_thing_at_all");
  CheckRefused(sandbox, "train --factor=3", "unknown flag --factor");
  CheckRefused(sandbox, "train --epochs=three", "--epochs=three is not a value for it");
  CheckRefused(sandbox, "train --epochs", "--epochs needs a value");
  CheckRefused(sandbox, "train stray", "\"stray\" is not a flag");
  CheckRefused(sandbox, "train --ranks=0", "--ranks=0: it must be at least 1");
  CheckRefused(sandbox, "train --ranks=-4", "--ranks=-4");
  CheckRefused(sandbox, "train --ranks=100000 --devices=cpu", "from 1 to 1000");
  CheckRefused(sandbox, "train --hidden=0", "--hidden=0: it must be at least 1");
  CheckRefused(sandbox, "train --batch=-1", "--batch=-1");
  CheckRefused(sandbox, "train --learning_rate=0", "must be above 0");
  CheckRefused(sandbox, "train --learning_rate=nan", "must be above 0");
  CheckRefused(sandbox, "train --dtype=int32", "it must be float32, bfloat16 or float16");
  CheckRefused(sandbox, "train --dtype=float8", "there are float32");
  CheckRefused(sandbox, "train --optimizer=lbfgs", "it must be sgd or adamw");
  CheckRefused(sandbox, "train --format=xml", "it must be table or json");
  CheckRefused(sandbox, "train --devices=gpu", "is not cpu, cuda");
  CheckRefused(sandbox, "train --devices=cuda:63", "this machine has");
  CheckRefused(sandbox, "train --data=/no/such/place",
               "/no/such/place/train-images-idx3-ubyte.gz: No such file");
  CheckRefused(sandbox, "bench", "say what to measure: one of all_reduce");
  CheckRefused(sandbox, "bench all_shuffle", "\"all_shuffle\" is not one of all_reduce");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -b 12Q", "\"12Q\" is not a size");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -b 4K -e 1K", "sizes must rise");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -f 1", "sizes must rise");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -o median", "there are sum, avg");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --graph", "graphs are for GPUs");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --peer=nccl", "NCCL");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --peer=mpi",
               "--peer=mpi: it must be none, nccl or nccl_symmetric");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --transport=pigeon",
               "transport \"pigeon\": there are auto");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --transport=peer",
               "all ranks are on the CPU");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --max_lines_bytes=many",
               "\"many\" is not a size");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --lines_blocks=few",
               "--lines_blocks=few is not a value");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --tune", "on two GPUs or more");
  CheckRefused(sandbox, "bench all_gather --devices=cpu --tune", "--tune for all_reduce");
  CheckRefused(sandbox, "bench barrier --devices=cpu --graph", "are for collectives");
  CheckRefused(sandbox, "bench mlp --devices=cpu --rows=8,x", "--rows=8,x: \"x\" is not a number");
  CheckRefused(sandbox, "bench mlp --devices=cpu --rows=0", "\"0\" is not a number of at least 1");
  CheckRefused(sandbox, "bench mlp --devices=cpu --hidden=0", "--hidden=0: it must be at least 1");
  CheckRefused(sandbox, "bench mlp --devices=cpu --inner=-1", "--inner=-1: it must be at least 1");
  CheckRefused(sandbox, "bench mlp --devices=cpu -d int32", "it must be a floating type");
  CheckRefused(sandbox, "bench mlp --devices=cpu -w -1", "both must be at least 0");
  CheckRefused(sandbox, "bench mlp --devices=cpu --graph", "graphs are for GPUs");
  CheckRefused(sandbox, "bench mlp --devices=cpu --peer=nccl", "NCCL");
  CheckRefused(sandbox, "bench mlp --devices=cpu --peer=nccl_symmetric", "for collectives alone");
  CheckRefused(sandbox, "bench mlp --devices=cpu --tune", "--tune for all_reduce");
  CheckRefused(sandbox, "bench limits --devices=cpu", "limits: they are those of GPUs");
  CheckRefused(sandbox, "check --minutes=0", "--minutes=0: it must be above 0");
  CheckRefused(sandbox, "check --minutes=nan", "must be above 0");
  CheckRefused(sandbox, "check --ranks=1", "--ranks=1: it must be from 2 to 1000");
  CheckRefused(sandbox, "check --devices=cpu", "unknown flag --devices");
  CheckRefused(sandbox, "check --epochs=3", "unknown flag --epochs");
  CheckRefused(sandbox, "check all", "\"all\" is not a flag");
  CheckRefused(sandbox, "info --ranks", "--ranks needs a value");
}

TEST_CASE(
    "a directory where a file should be, and a file that is no image set, are one clear line") {
  const Sandbox sandbox;
  std::filesystem::create_directory(sandbox.path() + "/train-images-idx3-ubyte");
  CheckRefused(sandbox, "train --data=.", "is a directory");
  std::filesystem::remove(sandbox.path() + "/train-images-idx3-ubyte");
  std::ofstream(sandbox.path() + "/train-images-idx3-ubyte.gz") << "\x1f\x8b\x08 not really gzip";
  CheckRefused(sandbox, "train --data=.", "cannot be unpacked");
}

TEST_CASE("help is on stdout, and asking for nothing is not asking for help") {
  const Sandbox sandbox;
  for (const char* arguments : {"help", "--help", "train --help", "bench -h", "info --help"}) {
    const Outcome outcome = sandbox.Run(arguments);
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.out.size() > 100);
    CHECK(outcome.err.empty());
  }
  CHECK(sandbox.Run("train --help").out.find("--learning_rate") != std::string::npos);
  CHECK(sandbox.Run("").exit_code == 2);
}

TEST_CASE("info tells the transport and why") {
  const Sandbox sandbox;
  const Outcome outcome = sandbox.Run("info --devices=cpu --ranks=3");
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.out.find("cpu, because all ranks are on the CPU") != std::string::npos);
  CHECK(outcome.out.find("3, on cpu, cpu, cpu") != std::string::npos);
}

std::string Number(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

// A small set that can be learnt: the brightest of ten columns is the label.
void WriteImageSet(const std::string& directory, const std::string& prefix, std::uint32_t count,
                   unsigned seed) {
  std::minstd_rand random(seed);
  std::string images = Number(0x803) + Number(count) + Number(2) + Number(10);
  std::string labels = Number(0x801) + Number(count);
  for (std::uint32_t image = 0; image < count; ++image) {
    const auto label = static_cast<unsigned>(random() % 10);
    labels += static_cast<char>(label);
    for (unsigned pixel = 0; pixel < 20; ++pixel)
      images += static_cast<char>(random() % 60 + (pixel % 10 == label ? 180 : 0));
  }
  std::ofstream(directory + "/" + prefix + "-images-idx3-ubyte", std::ios::binary) << images;
  std::ofstream(directory + "/" + prefix + "-labels-idx1-ubyte", std::ios::binary) << labels;
}

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
    INFO(outcome.out << outcome.err);
    REQUIRE(outcome.exit_code == 0);
    CHECK(outcome.err.empty());
    const auto document = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
    REQUIRE_FALSE(document.is_discarded());
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

}  // namespace
}  // namespace lockstep::tools
