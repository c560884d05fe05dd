// Layers and parameters whose ranks do not give the same options.
#include <map>
#include <string>

#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/run_ranks.h"
#include "lockstep/tests/layers/array.h"
#include "lockstep/tests/layers/host_threads.h"

namespace lockstep::testing {
namespace {

constexpr auto kDiffer = absl::StatusCode::kFailedPrecondition;

using Maker = HostThreads::Body;

template <typename Layer>
Maker Make(typename Layer::Options options) {
  return [=](Worker& worker, Communicator& comm) {
    return Layer::Create(worker, comm, options).status();
  };
}

Maker MakeParameter(std::string name, Shape shape, int axis, DType dtype) {
  return [=](Worker& worker, Communicator& comm) {
    return Parameter::Create(worker, comm, name, shape, axis, dtype).status();
  };
}

// Rank 1 of three makes `other`, the rest `usual`: all must get one text that ends with `says`, and
// then, without a Reset, make `usual` together.
void RequireDiffer(const Maker& usual, const Maker& other, const std::string& says) {
  auto ranks = HostThreads::Create(3);
  REQUIRE_OK(ranks);
  const auto statuses = ranks->Run([&](Worker& worker, Communicator& comm) {
    return worker.rank() == 1 ? other(worker, comm) : usual(worker, comm);
  });
  for (const absl::Status& status : statuses) {
    INFO(status.ToString());
    INFO(says);
    REQUIRE(status.code() == kDiffer);
    REQUIRE(status.message() == says);
  }
  for (const absl::Status& status : ranks->Run(usual)) REQUIRE_OK(status);
}

// One layer per entry, each with one option changed; "seed (ranks 0, 2: 1; rank 1: 2)".
template <typename Layer>
void RequireDifferIn(const std::string& name, const typename Layer::Options& usual,
                     const std::map<std::string, typename Layer::Options>& others) {
  for (const auto& [difference, other] : others) {
    RequireDiffer(
        Make<Layer>(usual), Make<Layer>(other),
        name + ": the ranks differ in " + difference + "; it must be the same on every rank");
  }
}

}  // namespace

TEST_CASE("Ranks that differ in any option of a column-parallel layer are told both values") {
  using Options = ColumnParallelLinear::Options;
  const auto change = [](void (*by)(Options&)) {
    Options options{.in_features = 4, .out_features = 6, .seed = 1};
    by(options);
    return options;
  };
  RequireDifferIn<ColumnParallelLinear>(
      "ColumnParallelLinear", change([](Options&) {}),
      {{"in_features (ranks 0, 2: 4; rank 1: 5)", change([](Options& o) { o.in_features = 5; })},
       {"out_features (ranks 0, 2: 6; rank 1: 7)", change([](Options& o) { o.out_features = 7; })},
       {"bias (ranks 0, 2: true; rank 1: false)", change([](Options& o) { o.bias = false; })},
       {"gather_output (ranks 0, 2: false; rank 1: true)",
        change([](Options& o) { o.gather_output = true; })},
       {"skip_bias_add (ranks 0, 2: false; rank 1: true)",
        change([](Options& o) { o.skip_bias_add = true; })},
       {"dtype (ranks 0, 2: float32; rank 1: bfloat16)",
        change([](Options& o) { o.dtype = DType::kBFloat16; })},
       {"seed (ranks 0, 2: 1; rank 1: 18446744073709551615)",
        change([](Options& o) { o.seed = UINT64_MAX; })},
       {"out_features (ranks 0, 2: 6; rank 1: 7) and seed (ranks 0, 2: 1; rank 1: 2)",
        change([](Options& o) {
          o.out_features = 7;
          o.seed = 2;
        })}});
}

TEST_CASE("Ranks that differ in any option of a row-parallel layer are told both values") {
  using Options = RowParallelLinear::Options;
  const auto change = [](void (*by)(Options&)) {
    Options options{.in_features = 4, .out_features = 6, .seed = 1};
    by(options);
    return options;
  };
  RequireDifferIn<RowParallelLinear>(
      "RowParallelLinear", change([](Options&) {}),
      {{"in_features (ranks 0, 2: 4; rank 1: 5)", change([](Options& o) { o.in_features = 5; })},
       {"out_features (ranks 0, 2: 6; rank 1: 7)", change([](Options& o) { o.out_features = 7; })},
       {"bias (ranks 0, 2: true; rank 1: false)", change([](Options& o) { o.bias = false; })},
       {"input_is_parallel (ranks 0, 2: true; rank 1: false)",
        change([](Options& o) { o.input_is_parallel = false; })},
       {"skip_bias_add (ranks 0, 2: false; rank 1: true)",
        change([](Options& o) { o.skip_bias_add = true; })},
       {"dtype (ranks 0, 2: float32; rank 1: float64)",
        change([](Options& o) { o.dtype = DType::kFloat64; })},
       {"seed (ranks 0, 2: 1; rank 1: 2)", change([](Options& o) { o.seed = 2; })}});
}

TEST_CASE("Ranks that differ in any option of an MLP are told both values") {
  using Options = ParallelMlp::Options;
  const auto change = [](void (*by)(Options&)) {
    Options options{.in_features = 4, .hidden_features = 9, .out_features = 6, .seed = 1};
    by(options);
    return options;
  };
  RequireDifferIn<ParallelMlp>(
      "ParallelMlp", change([](Options&) {}),
      {{"in_features (ranks 0, 2: 4; rank 1: 5)", change([](Options& o) { o.in_features = 5; })},
       {"hidden_features (ranks 0, 2: 9; rank 1: 8)",
        change([](Options& o) { o.hidden_features = 8; })},
       {"out_features (ranks 0, 2: 6; rank 1: 7)", change([](Options& o) { o.out_features = 7; })},
       {"activation (ranks 0, 2: gelu; rank 1: relu)",
        change([](Options& o) { o.activation = Activation::kRelu; })},
       {"bias (ranks 0, 2: true; rank 1: false)", change([](Options& o) { o.bias = false; })},
       {"dtype (ranks 0, 2: float32; rank 1: float16)",
        change([](Options& o) { o.dtype = DType::kFloat16; })},
       {"seed (ranks 0, 2: 1; rank 1: 2)", change([](Options& o) { o.seed = 2; })}});
}

TEST_CASE("Ranks that differ in what a parameter is are told both values") {
  const Maker usual = MakeParameter("w", {4, 6}, 1, DType::kFloat32);
  const auto text = [](const std::string& difference) {
    return "parameter w: the ranks differ in " + difference + "; it must be the same on every rank";
  };
  RequireDiffer(usual, MakeParameter("w", {6, 4}, 1, DType::kFloat32),
                text("full_shape (ranks 0, 2: [4, 6]; rank 1: [6, 4])"));
  RequireDiffer(usual, MakeParameter("w", {4, 6}, 0, DType::kFloat32),
                text("shard_axis (ranks 0, 2: 1; rank 1: 0)"));
  RequireDiffer(usual, MakeParameter("w", {4, 6}, 1, DType::kFloat64),
                text("dtype (ranks 0, 2: float32; rank 1: float64)"));
}

TEST_CASE("Ranks that make different things are told who makes what") {
  const Maker mlp = Make<ParallelMlp>({.in_features = 4, .hidden_features = 9, .out_features = 6});
  const auto text = [](const std::string& kinds) {
    return "the ranks make different things: " + kinds + "; they must all make the same";
  };
  RequireDiffer(mlp, Make<RowParallelLinear>({.in_features = 4, .out_features = 6}),
                text("ranks 0, 2: ParallelMlp; rank 1: RowParallelLinear"));
  RequireDiffer(mlp, MakeParameter("w", {4, 6}, 1, DType::kFloat32),
                text("ranks 0, 2: ParallelMlp; rank 1: parameter w"));
  // Names that are equal for longer than one exchange carries.
  const std::string stem(1000, 'n');
  RequireDiffer(MakeParameter(stem + "a", {4}, 0, DType::kFloat32),
                MakeParameter(stem + "b", {4}, 0, DType::kFloat32),
                text("ranks 0, 2: parameter " + stem + "a; rank 1: parameter " + stem + "b"));
}

TEST_CASE("Where every rank differs, every value is named") {
  auto ranks = HostThreads::Create(3);
  REQUIRE_OK(ranks);
  const auto statuses = ranks->Run([](Worker& worker, Communicator& comm) {
    const auto seed = static_cast<std::uint64_t>(worker.rank() + 5);
    return Make<RowParallelLinear>({.in_features = 1, .out_features = 1, .seed = seed})(worker,
                                                                                        comm);
  });
  for (const absl::Status& status : statuses) {
    REQUIRE(status.code() == kDiffer);
    REQUIRE(Says(status, "seed (rank 0: 5; rank 1: 6; rank 2: 7)"));
  }
}

TEST_CASE("A layer is compared in one collective, and in none where there is one rank") {
  for (const int world_size : {1, 2, 5}) {
    auto ranks = HostThreads::Create(world_size);
    REQUIRE_OK(ranks);
    const auto statuses = ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      const std::uint64_t each = comm.world_size() == 1 ? 0 : 1;
      std::uint64_t expected = 0;
      for (const Maker& make :
           {Make<ColumnParallelLinear>({.in_features = 4, .out_features = 6}),
            Make<RowParallelLinear>({.in_features = 4, .out_features = 6}),
            Make<ParallelMlp>({.in_features = 4, .hidden_features = 5, .out_features = 6}),
            MakeParameter("w", {4, 6}, 1, DType::kFloat32)}) {
        LOCKSTEP_RETURN_IF_ERROR(make(worker, comm));
        expected += each;
        if (comm.stats().num_collectives != expected) {
          return absl::InternalError(
              absl::StrCat(comm.stats().num_collectives, " collectives, not ", expected));
        }
      }
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) REQUIRE_OK(status);
  }
}

TEST_CASE("Options are compared by any communicator, and a fault there fails all ranks") {
  const auto make = [](Worker& worker, Communicator& comm) {
    return Make<ParallelMlp>({.in_features = 4, .hidden_features = 5, .out_features = 6})(worker,
                                                                                          comm);
  };
  REQUIRE_OK(RunRanks({.world_size = 4, .perturbation = {.seed = 7}}, make));
  std::vector<absl::Status> each;
  const RunRanksOptions faulty{
      .world_size = 4,
      .perturbation = {.faults = {{.rank = 2, .nth = 1, .kind = FaultKind::kWrongCount}}}};
  REQUIRE_FALSE(RunRanks(faulty, make, &each).ok());
  for (const absl::Status& status : each) REQUIRE_FALSE(status.ok());
}

}  // namespace lockstep::testing
