#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

struct Sizes {
  std::int64_t tokens;
  std::int64_t in_features;
  std::int64_t out_features;
};

// Sizes that divide and that do not, fewer features than ranks, and none at all.
constexpr Sizes kSizes[] = {{4, 16, 8}, {5, 7, 13}, {1, 3, 2}, {0, 4, 3},
                            {3, 1, 1},  {2, 0, 5},  {2, 5, 0}};

struct Flags {
  bool bias;
  bool skip_bias_add;
  bool full;  // gather_output, or not input_is_parallel
};

constexpr Flags kFlags[] = {{true, false, false}, {true, false, true}, {false, false, false},
                            {false, false, true}, {true, true, false}, {true, true, true}};

LayerMaker MakeColumn(const Sizes& sizes, const Flags& flags, DType dtype) {
  return Make(ColumnParallelLinear::Options{.in_features = sizes.in_features,
                                            .out_features = sizes.out_features,
                                            .bias = flags.bias,
                                            .gather_output = flags.full,
                                            .skip_bias_add = flags.skip_bias_add,
                                            .dtype = dtype});
}

LayerMaker MakeRow(const Sizes& sizes, const Flags& flags, DType dtype) {
  return Make(RowParallelLinear::Options{.in_features = sizes.in_features,
                                         .out_features = sizes.out_features,
                                         .bias = flags.bias,
                                         .input_is_parallel = !flags.full,
                                         .skip_bias_add = flags.skip_bias_add,
                                         .dtype = dtype});
}

LayerMaker MakeWhole(const Sizes& sizes, bool bias, DType dtype) {
  return Make(Linear::Options{.in_features = sizes.in_features,
                              .out_features = sizes.out_features,
                              .bias = bias,
                              .dtype = dtype});
}

using SplitMaker = LayerMaker (*)(const Sizes&, const Flags&, DType);

Inputs InputsOf(const Sizes& sizes, bool bias, DType dtype) {
  return Inputs::Uniform(dtype, sizes.tokens, {sizes.in_features, sizes.out_features}, bias);
}

// All ranks of `group` against the unsharded layer, whose bias is 0 where the split one leaves it
// out.
void RequireEqualToUnsharded(Ranks& group, Ranks& alone, SplitMaker make, const Sizes& sizes,
                             const Flags& flags, DType dtype) {
  CAPTURE(group.world_size(), Name(dtype).data(), sizes.tokens, sizes.in_features,
          sizes.out_features, flags.bias, flags.skip_bias_add, flags.full);
  const Inputs inputs = InputsOf(sizes, flags.bias, dtype);
  Inputs whole_inputs = inputs;
  if (flags.skip_bias_add) whole_inputs.parameters[1] = Array::Constant({sizes.out_features}, 0.0);
  const auto whole = RunPasses(alone, MakeWhole(sizes, flags.bias, dtype), whole_inputs);
  const auto split = RunPasses(group, make(sizes, flags, dtype), inputs);
  REQUIRE_OK(whole);
  REQUIRE_OK(split);

  const Pass& expected = whole->front();
  // A parameter's gradient is never rounded to 16 bits, nor summed over ranks.
  const double gradient_tolerance = dtype == DType::kFloat64 ? 1e-12 : 1e-5;
  const Pass& first = split->front();
  REQUIRE(Distance(first.y, expected.y) <= Tolerance(dtype));
  REQUIRE(Distance(first.grad_x, expected.grad_x) <= Tolerance(dtype));
  REQUIRE(first.gradients.size() == expected.gradients.size());
  for (std::size_t i = 0; i < first.gradients.size(); ++i) {
    REQUIRE(Distance(first.gradients[i], expected.gradients[i]) <= gradient_tolerance);
  }
  for (const Pass& pass : *split) {
    REQUIRE(SameBits(pass.y, first.y));
    REQUIRE(SameBits(pass.grad_x, first.grad_x));
    for (std::size_t i = 0; i < first.gradients.size(); ++i) {
      REQUIRE(SameBits(pass.gradients[i], first.gradients[i]));
    }
  }
}

void RequireEqualToUnsharded(SplitMaker make) {
  auto alone = CreateRanks(1);
  REQUIRE_OK(alone);
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    for (const Sizes& sizes : kSizes) {
      for (const Flags& flags : kFlags) {
        RequireEqualToUnsharded(*group, *alone, make, sizes, flags, dtype);
      }
    }
  }
}

void RequireGradientsAreDerivatives(SplitMaker make) {
  constexpr Sizes kSmall{3, 5, 4};
  auto group = CreateRanks(GENERATE(1, 2, 3, 6));
  REQUIRE_OK(group);
  for (const Flags& flags : kFlags) {
    const Inputs inputs = InputsOf(kSmall, flags.bias, DType::kFloat64);
    const LayerMaker maker = make(kSmall, flags, DType::kFloat64);
    const auto passes = RunPasses(*group, maker, inputs);
    REQUIRE_OK(passes);
    std::vector<Pass> differences(static_cast<std::size_t>(group->world_size()));
    REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, maker(worker, comm));
      LOCKSTEP_ASSIGN_OR_RETURN(differences[worker.rank()], DifferencePass(worker, layer, inputs));
      return absl::OkStatus();
    }));
    const Pass& pass = passes->front();
    REQUIRE(Distance(pass.grad_x, differences.front().grad_x) < 1e-8);
    REQUIRE(Distance(pass.gradients[0], differences.front().gradients[0]) < 1e-8);
    // A bias that is left to the caller has no part in the result; its gradient is that of what the
    // caller adds.
    if (flags.bias && !flags.skip_bias_add) {
      REQUIRE(Distance(pass.gradients[1], differences.front().gradients[1]) < 1e-8);
    }
  }
}

// Two passes of one layer against the sum of two layers' one pass each.
void RequireGradientsAddUp(SplitMaker make) {
  constexpr Sizes kOdd{3, 5, 7};
  constexpr Flags kPlain{true, false, true};
  auto group = CreateRanks(GENERATE(1, 3, 8));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    const LayerMaker maker = make(kOdd, kPlain, dtype);
    const Inputs first = InputsOf(kOdd, true, dtype);
    Inputs second = first;
    second.x = Array::Uniform({3, 5}, 50);
    second.grad_out = Array::Uniform({3, 7}, 51);
    const auto once = RunPasses(*group, maker, first);
    const auto again = RunPasses(*group, maker, second);
    REQUIRE_OK(once);
    REQUIRE_OK(again);
    Pass both;
    REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, maker(worker, comm));
      LOCKSTEP_ASSIGN_OR_RETURN(Pass ignored, RunPass(worker, comm, layer, first));
      LOCKSTEP_ASSIGN_OR_RETURN(Pass pass, RunPass(worker, comm, layer, second));
      if (worker.rank() == 0) both = pass;
      return absl::OkStatus();
    }));
    for (std::size_t i = 0; i < 2; ++i) {
      Array sum = once->front().gradients[i];
      const Array& addend = again->front().gradients[i];
      for (std::size_t j = 0; j < sum.values.size(); ++j) sum.values[j] += addend.values[j];
      REQUIRE(Distance(both.gradients[i], sum) <= (dtype == DType::kFloat64 ? 1e-12 : 1e-5));
    }
  }
}

void RequireBiasIsAddedOnce(SplitMaker make) {
  auto group = CreateRanks(GENERATE(range(1, 9)));
  REQUIRE_OK(group);
  constexpr Sizes kOdd{2, 5, 7};
  for (const DType dtype : kFloatingTypes) {
    for (const bool full : {false, true}) {
      Inputs inputs = InputsOf(kOdd, true, dtype);
      inputs.parameters[0] = Array::Constant({5, 7}, 0.0);
      inputs.parameters[1] = {{7}, {1, 2, 3, 4, 5, 6, 7}};
      const auto passes = RunPasses(*group, make(kOdd, {true, false, full}, dtype), inputs);
      REQUIRE_OK(passes);
      for (const Pass& pass : *passes) {
        REQUIRE(SameBits(pass.y, {{2, 7}, {1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7}}));
      }
    }
  }
}

// How many collectives rank 0 takes part in during one forward, then one backward.
template <typename Layer>
std::vector<std::uint64_t> CountCollectives(Ranks& group, const typename Layer::Options& options,
                                            std::int64_t x_features, std::int64_t y_features) {
  std::vector<std::uint64_t> counts(2);
  REQUIRE_OK(group.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Layer layer, Layer::Create(worker, comm, options));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({2, x_features}, options.dtype));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, worker.Zeros({2, y_features}, options.dtype));
    const std::uint64_t start = comm.stats().num_collectives;
    LOCKSTEP_RETURN_IF_ERROR(layer.Forward(x).status());
    const std::uint64_t between = comm.stats().num_collectives;
    LOCKSTEP_RETURN_IF_ERROR(layer.Backward(x, grad_out).status());
    if (worker.rank() == 0) counts = {between - start, comm.stats().num_collectives - between};
    return absl::OkStatus();
  }));
  return counts;
}

}  // namespace

TEST_CASE("A column-parallel layer equals the unsharded one, bit-equal on every rank", "[gpu]") {
  RequireEqualToUnsharded(MakeColumn);
}

TEST_CASE("A row-parallel layer equals the unsharded one, bit-equal on every rank", "[gpu]") {
  RequireEqualToUnsharded(MakeRow);
}

TEST_CASE("A column-parallel layer's gradients are its derivatives", "[gpu]") {
  RequireGradientsAreDerivatives(MakeColumn);
}

TEST_CASE("A row-parallel layer's gradients are its derivatives", "[gpu]") {
  RequireGradientsAreDerivatives(MakeRow);
}

TEST_CASE("A column-parallel layer's gradients add up over two Backward calls", "[gpu]") {
  RequireGradientsAddUp(MakeColumn);
}

TEST_CASE("A row-parallel layer's gradients add up over two Backward calls", "[gpu]") {
  RequireGradientsAddUp(MakeRow);
}

TEST_CASE("With weights of zero, a column-parallel layer gives its bias at every world size",
          "[gpu]") {
  RequireBiasIsAddedOnce(MakeColumn);
}

TEST_CASE("With weights of zero, a row-parallel layer gives its bias at every world size",
          "[gpu]") {
  RequireBiasIsAddedOnce(MakeRow);
}

TEST_CASE("A pass takes the collectives its header promises and no more", "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  using Counts = std::vector<std::uint64_t>;
  using Column = ColumnParallelLinear;
  using Row = RowParallelLinear;
  REQUIRE(CountCollectives<Column>(*group, {.in_features = 4, .out_features = 6}, 4, 3) ==
          Counts{0, 1});
  REQUIRE(CountCollectives<Column>(*group,
                                   {.in_features = 4, .out_features = 6, .gather_output = true}, 4,
                                   6) == Counts{1, 1});
  REQUIRE(CountCollectives<Row>(*group, {.in_features = 4, .out_features = 6}, 2, 6) ==
          Counts{1, 0});
  REQUIRE(CountCollectives<Row>(*group,
                                {.in_features = 4, .out_features = 6, .input_is_parallel = false},
                                4, 6) == Counts{1, 1});
}

}  // namespace lockstep::testing
