// From the command line to the options: every flag arrives where it belongs.
#include "lockstep/tools/lockstep/flags.h"

#include <functional>

#include "absl/flags/reflection.h"
#include "absl/strings/str_split.h"
#include "lockstep/tests/catch.h"

namespace lockstep::tools {
namespace {

// Sets them back to their defaults when it goes.
class Restored {
 public:
  explicit Restored(const std::vector<const char*>& flags) : flags_(flags) {}
  ~Restored() {
    for (const char* name : flags_) {
      absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(name);
      std::string error;
      LOCKSTEP_CHECK(flag->ParseFrom(flag->DefaultValue(), &error));
    }
  }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  const std::vector<const char*>& flags_;
};

template <typename Options>
Options Parsed(std::vector<std::string> arguments, const std::vector<const char*>& flags,
               absl::StatusOr<Options> (*from_flags)()) {
  const Restored restored(flags);
  const auto others = ParseFlags(arguments, flags);
  REQUIRE_OK(others);
  CHECK(others->empty());
  const auto options = from_flags();
  REQUIRE_OK(options);
  return *options;
}

TEST_CASE("train's flags arrive in its options, and its defaults are those of its help") {
  const auto train = [](std::vector<std::string> arguments) {
    arguments.emplace_back("--devices=cpu");
    return Parsed(std::move(arguments), kTrainFlags, TrainOptionsFromFlags);
  };
  const TrainOptions defaults = train({});
  CHECK(defaults.executor.world_size == 0);
  CHECK_FALSE(defaults.executor.pin_threads);
  CHECK(defaults.hidden == 256);
  CHECK(defaults.epochs == 3);
  CHECK(defaults.batch == 128);
  CHECK(defaults.learning_rate == 0.05);
  CHECK_FALSE(defaults.adamw);
  CHECK(defaults.activation == Activation::kGelu);
  CHECK(defaults.dtype == DType::kFloat32);
  CHECK(defaults.seed == 1);
  CHECK_FALSE(defaults.verify);
  CHECK_FALSE(defaults.json);
  const TrainOptions given =
      train({"--ranks=3", "--pin", "--hidden=5", "--epochs", "7", "--batch=11", "--optimizer=adamw",
             "--activation=relu", "--dtype=float16", "--seed=18446744073709551615", "--data=/d",
             "--format=json", "--verify"});
  CHECK(given.executor.devices == std::vector<Device>{Device::Cpu()});
  CHECK(given.executor.world_size == 3);
  CHECK(given.executor.pin_threads);
  CHECK(given.hidden == 5);
  CHECK(given.epochs == 7);
  CHECK(given.batch == 11);
  CHECK(given.adamw);
  CHECK(given.learning_rate == 0.001);
  CHECK(given.activation == Activation::kRelu);
  CHECK(given.dtype == DType::kFloat16);
  CHECK(given.seed == ~std::uint64_t{0});
  CHECK(given.data == "/d");
  CHECK(given.json);
  CHECK(given.verify);
  CHECK(train({"--optimizer=adamw", "--learning_rate=0.25"}).learning_rate == 0.25);
  CHECK_FALSE(train({"--verify", "--noverify"}).verify);
  CHECK(train({"--dtype=bf16"}).dtype == DType::kBFloat16);
}

TEST_CASE("bench's flags arrive in its options, and its defaults are those of its help") {
  const auto bench = [](std::vector<std::string> arguments) {
    arguments.emplace_back("--devices=cpu");
    return Parsed(std::move(arguments), kBenchFlags, BenchOptionsFromFlags);
  };
  const BenchOptions defaults = bench({});
  CHECK(defaults.min_bytes == 1024);
  CHECK(defaults.max_bytes == 64 << 20);
  CHECK(defaults.factor == 2);
  CHECK(defaults.iterations == 0);
  CHECK(defaults.warmup == 5);
  CHECK(defaults.check);
  CHECK(defaults.dtype == DType::kFloat32);
  CHECK(defaults.op == ReduceOp::kSum);
  CHECK_FALSE((defaults.in_place || defaults.json || defaults.graph || defaults.tune));
  CHECK(defaults.peer == BenchPeer::kNone);
  CHECK(defaults.mlp.hidden == 8192);
  CHECK(defaults.mlp.inner == 32768);
  CHECK(defaults.mlp.rows == std::vector<std::int64_t>{8, 512, 4096});
  CHECK(defaults.mlp.dtype == DType::kBFloat16);
  CHECK(defaults.barrier.transport == TransportKind::kAuto);
  const AllReduceTuning tuning;
  CHECK(defaults.barrier.tuning.max_lines_bytes == tuning.max_lines_bytes);
  CHECK(defaults.barrier.tuning.lines_blocks == tuning.lines_blocks);
  const BenchOptions given =
      bench(absl::StrSplit("--ranks=2 -b 2K -e 3M -f 4 -n 6 -w 7 -c 0 -d int32 -o max --in_place "
                           "--format=json --graph --tune --peer=nccl --transport=staged --hidden=9 "
                           "--inner=10 --rows=11,12 --max_lines_bytes=13K --lines_blocks=14 "
                           "--lines_threads=15 --push_blocks=16",
                           ' '));
  CHECK(given.executor.world_size == 2);
  CHECK(given.min_bytes == 2048);
  CHECK(given.max_bytes == 3 << 20);
  CHECK(given.factor == 4);
  CHECK(given.iterations == 6);
  CHECK(given.warmup == 7);
  CHECK_FALSE(given.check);
  CHECK(given.dtype == DType::kInt32);
  CHECK(given.op == ReduceOp::kMax);
  CHECK((given.in_place && given.json && given.graph && given.tune));
  CHECK(given.peer == BenchPeer::kNccl);
  CHECK(given.barrier.transport == TransportKind::kStaged);
  CHECK(given.mlp.hidden == 9);
  CHECK(given.mlp.inner == 10);
  CHECK(given.mlp.rows == std::vector<std::int64_t>{11, 12});
  CHECK(given.mlp.dtype == DType::kInt32);
  CHECK(given.barrier.tuning.max_lines_bytes == 13 << 10);
  CHECK(given.barrier.tuning.lines_blocks == 14);
  CHECK(given.barrier.tuning.lines_threads == 15);
  CHECK(given.barrier.tuning.push_blocks == 16);
  CHECK(bench({"--peer=nccl_symmetric"}).peer == BenchPeer::kNcclSymmetric);
  CHECK(bench({"-c", "1"}).check);
}

TEST_CASE("check's and info's flags arrive in their options") {
  const auto check = [](std::vector<std::string> arguments) {
    return Parsed(std::move(arguments), kCheckFlags, CheckOptionsFromFlags);
  };
  const CheckOptions defaults = check({});
  CHECK(defaults.world_sizes == std::vector<int>{2, 3, 4, 8});
  CHECK_FALSE(defaults.campaign);
  CHECK(defaults.seed == 1);
  CHECK(defaults.length == absl::Minutes(1));
  CHECK_FALSE(defaults.json);
  const CheckOptions given =
      check({"--ranks=5", "--campaign", "--seed=4294967296", "--minutes=0.5", "--format=json"});
  CHECK(given.world_sizes == std::vector<int>{5});
  CHECK(given.campaign);
  CHECK(given.seed == std::uint64_t{1} << 32);
  CHECK(given.length == absl::Seconds(30));
  CHECK(given.json);
  const auto info = Parsed({"--devices=cpu", "--ranks=4"}, kInfoFlags, ExecutorOptionsFromFlags);
  CHECK(info.world_size == 4);
}

TEST_CASE("what is no flag is handed back, and -c 0 is a flag and its value") {
  const Restored restored(kBenchFlags);
  const std::vector<std::string> arguments = {"mlp", "-c", "0", "--graph", "more"};
  const auto others = ParseFlags(arguments, kBenchFlags);
  REQUIRE_OK(others);
  CHECK(*others == std::vector<std::string>{"mlp", "more"});
}

}  // namespace
}  // namespace lockstep::tools
