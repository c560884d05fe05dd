// What the layers start with.
#include "lockstep/layers/linear.h"
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/float_modes.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

// The full starting values of what `make` makes, as rank 0 gathers them.
absl::StatusOr<std::vector<Array>> StartingValues(Ranks& group, const LayerMaker& make) {
  std::vector<Array> values;
  const absl::Status status = group.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, make(worker, comm));
    for (const Parameter* parameter : layer.parameters) {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter->GatherFull(worker, comm));
      LOCKSTEP_ASSIGN_OR_RETURN(Array value, ToArray(worker, full));
      if (worker.rank() == 0) values.push_back(std::move(value));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return values;
}

}  // namespace

TEST_CASE("Parallel layers start with the full values of the unsharded layer of their seed",
          "[gpu]") {
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    const auto whole = StartingValues(
        *alone,
        Make(Linear::Options{.in_features = 5, .out_features = 6, .dtype = dtype, .seed = 9}));
    const auto column = StartingValues(
        *group, Make(ColumnParallelLinear::Options{
                    .in_features = 5, .out_features = 6, .dtype = dtype, .seed = 9}));
    const auto row = StartingValues(
        *group, Make(RowParallelLinear::Options{
                    .in_features = 5, .out_features = 6, .dtype = dtype, .seed = 9}));
    REQUIRE_OK(whole);
    REQUIRE_OK(column);
    REQUIRE_OK(row);
    for (std::size_t i = 0; i < 2; ++i) {
      REQUIRE(SameBits((*column)[i], (*whole)[i]));
      REQUIRE(SameBits((*row)[i], (*whole)[i]));
    }
  }
}

TEST_CASE("The layers of an MLP start differently, and the same at every world size", "[gpu]") {
  const LayerMaker make = Make(
      ParallelMlp::Options{.in_features = 6, .hidden_features = 6, .out_features = 6, .seed = 9});
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  const auto whole = StartingValues(*alone, make);
  const auto split = StartingValues(*group, make);
  REQUIRE_OK(whole);
  REQUIRE_OK(split);
  REQUIRE(split->size() == 4);
  REQUIRE_FALSE(SameBits((*split)[0], (*split)[2]));
  REQUIRE_FALSE(SameBits((*split)[1], (*split)[3]));
  for (std::size_t i = 0; i < 4; ++i) REQUIRE(SameBits((*split)[i], (*whole)[i]));
}

TEST_CASE("Layers start with the same values in every floating-point mode of the host's thread",
          "[gpu]") {
  const auto make_in = [](const FloatMode& mode) -> LayerMaker {
    const LayerMaker make = Make(Linear::Options{.in_features = 3, .out_features = 5, .seed = 9});
    return [=](Worker& worker, Communicator& comm) {
      const FloatState own = ReadFloatState();
      WriteFloatState(mode.state);
      auto layer = make(worker, comm);
      WriteFloatState(own);
      return layer;
    };
  };
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  const auto expected = StartingValues(*alone, make_in({"default", ReadFloatState()}));
  REQUIRE_OK(expected);
  for (const FloatMode& mode : kFloatModes) {
    INFO(mode.name);
    const auto values = StartingValues(*alone, make_in(mode));
    REQUIRE_OK(values);
    CHECK(SameBits((*values)[0], (*expected)[0]));
  }
}

}  // namespace lockstep::testing
