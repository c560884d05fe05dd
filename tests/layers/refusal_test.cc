// What goes wrong inside a layer on one rank reaches the others at once, on threads of the host's
// own, where nothing else would tell them.
#include <string>

#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/array.h"
#include "lockstep/tests/layers/host_threads.h"

namespace lockstep::testing {
namespace {

constexpr int kRanks = 3;
constexpr int kCulprit = 1;

// Rank 1 does `bad`, the others `good`: its own error must be `code` with `says`, and the others'
// must name it, its code and its text. After Reset() all do `good` well.
void RequireOthersHear(const HostThreads::Body& good, const HostThreads::Body& bad,
                       absl::StatusCode code, const std::string& says) {
  auto ranks = HostThreads::Create(kRanks);
  REQUIRE_OK(ranks);
  for (int time = 0; time < 2; ++time) {
    const auto statuses = ranks->Run([&](Worker& worker, Communicator& comm) {
      if (worker.rank() == kCulprit) return bad(worker, comm);
      LOCKSTEP_RETURN_IF_ERROR(good(worker, comm));
      return comm.Barrier();
    });
    for (int rank = 0; rank < kRanks; ++rank) {
      const absl::Status& status = statuses[rank];
      CAPTURE(rank, status.ToString());
      REQUIRE(status.code() == (rank == kCulprit ? code : absl::StatusCode::kAborted));
      REQUIRE(Says(status, says));
      if (rank == kCulprit) continue;
      REQUIRE(Says(status, absl::StrCat("rank 1 failed: ", absl::StatusCodeToString(code))));
    }
    REQUIRE_OK(ranks->barrier().Reset());
    for (const absl::Status& status : ranks->Run(good)) REQUIRE_OK(status);
  }
}

void RequireOthersHear(const HostThreads::Body& good, const HostThreads::Body& bad,
                       const std::string& says) {
  RequireOthersHear(good, bad, absl::StatusCode::kInvalidArgument, says);
}

// A pass of a fresh layer: forward over `x`, then backward over `back_x` and `grad_out`.
struct Shapes {
  Shape x;
  Shape back_x;
  Shape grad_out;
};

template <typename Layer>
HostThreads::Body Pass(typename Layer::Options options, Shapes shapes) {
  return [=](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Layer layer, Layer::Create(worker, comm, options));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros(shapes.x, options.dtype));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor back_x, worker.Zeros(shapes.back_x, options.dtype));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, worker.Zeros(shapes.grad_out, options.dtype));
    if constexpr (std::is_same_v<Layer, ParallelMlp>) {
      ParallelMlp::Activations kept;
      LOCKSTEP_RETURN_IF_ERROR(layer.Forward(x, &kept).status());
      return layer.Backward(back_x, kept, grad_out).status();
    } else {
      LOCKSTEP_RETURN_IF_ERROR(layer.Forward(x).status());
      return layer.Backward(back_x, grad_out).status();
    }
  };
}

// A tensor that has the right shape and that no product takes.
absl::StatusOr<Tensor> Strided(Worker& worker, std::int64_t rows, std::int64_t columns) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor transposed, worker.Zeros({columns, rows}, DType::kFloat32));
  return transposed.Transpose();
}

}  // namespace

TEST_CASE("What a column-parallel layer refuses on one rank, all hear of at once") {
  using Layer = ColumnParallelLinear;
  const bool gathers = GENERATE(false, true);
  const Layer::Options options{.in_features = 4, .out_features = 6, .gather_output = gathers};
  const std::int64_t width = gathers ? 6 : 2;
  const auto good = Pass<Layer>(options, {{3, 4}, {3, 4}, {3, width}});
  RequireOthersHear(good, Pass<Layer>({.in_features = -1}, {}),
                    "ColumnParallelLinear: in_features is -1; it must be at least 0");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 5}, {3, 4}, {3, width}}),
                    "ColumnParallelLinear::Forward: x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 4}, {3, 5}, {3, width}}),
                    "ColumnParallelLinear::Backward: x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 4}, {3, 4}, {3, 5}}),
                    "ColumnParallelLinear::Backward: grad_out is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 4}, {3, 4}, {2, width}}),
                    "their first axes, the tokens, must be equal");
}

TEST_CASE("What a row-parallel layer refuses on one rank, all hear of at once") {
  using Layer = RowParallelLinear;
  const bool parallel = GENERATE(false, true);
  const Layer::Options options{.in_features = 6, .out_features = 4, .input_is_parallel = parallel};
  const std::int64_t width = parallel ? 2 : 6;
  const auto good = Pass<Layer>(options, {{3, width}, {3, width}, {3, 4}});
  RequireOthersHear(good, Pass<Layer>({.out_features = -2}, {}),
                    "RowParallelLinear: out_features is -2; it must be at least 0");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 5}, {3, width}, {3, 4}}),
                    "RowParallelLinear::Forward: x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, width}, {3, 5}, {3, 4}}),
                    "RowParallelLinear::Backward: x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, width}, {3, width}, {3, 5}}),
                    "RowParallelLinear::Backward: grad_out is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, width}, {3, width}, {2, 4}}),
                    "their first axes, the tokens, must be equal");
}

TEST_CASE("What an MLP refuses on one rank, all hear of at once") {
  using Layer = ParallelMlp;
  const Layer::Options options{.in_features = 4, .hidden_features = 5, .out_features = 2};
  const auto good = Pass<Layer>(options, {{3, 4}, {3, 4}, {3, 2}});
  RequireOthersHear(good, Pass<Layer>({.hidden_features = -3}, {}),
                    "ParallelMlp: hidden_features is -3; it must be at least 0");
  RequireOthersHear(good, Pass<Layer>({.dtype = DType::kInt32}, {}),
                    "ParallelMlp: type int32; it must be a floating type");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 5}, {3, 4}, {3, 2}}), "x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 4}, {3, 5}, {3, 2}}),
                    "ParallelMlp::Backward: x is float32 [3, 5]");
  RequireOthersHear(good, Pass<Layer>(options, {{3, 4}, {3, 4}, {3, 3}}),
                    "ParallelMlp::Backward: grad_out is float32 [3, 3]");
}

TEST_CASE("What a parameter refuses on one rank, all hear of at once") {
  const auto create = [](const Shape& shape, int axis, DType dtype) -> HostThreads::Body {
    return [=](Worker& worker, Communicator& comm) {
      return Parameter::Create(worker, comm, "p", shape, axis, dtype).status();
    };
  };
  const auto good = create({4, 6}, 1, DType::kFloat32);
  RequireOthersHear(good, create({4, 6}, 2, DType::kFloat32), "parameter p: shard_axis 2");
  const Shape none(0);
  RequireOthersHear(good, create(none, 0, DType::kFloat32), "parameter p: shape [] has 0 axes");
  RequireOthersHear(good, create({4, 6}, 1, DType::kInt64), "parameter p: type int64");
  RequireOthersHear(good, create({4, -6}, 1, DType::kFloat32), "[4, -6]");
}

TEST_CASE("A gather that some ranks refuse is no time-out for the one that does not") {
  auto ranks = HostThreads::Create(3);
  REQUIRE_OK(ranks);
  // In the reversed group the middle rank keeps its place.
  const auto statuses = ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto reversed, comm.Split(/*color=*/0, /*key=*/-worker.rank()));
    LOCKSTEP_ASSIGN_OR_RETURN(auto parameter,
                              Parameter::Create(worker, comm, "p", {6}, 0, DType::kFloat32));
    return parameter.GatherFull(worker, *reversed).status();
  });
  REQUIRE(statuses[0].code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(statuses[2].code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(statuses[1].code() == absl::StatusCode::kAborted);
  REQUIRE(Says(statuses[1], "gather over the group it was created for"));
}

TEST_CASE("Memory that runs out inside a layer on one rank, all hear of at once") {
  // No elements, and a result of more than 2^62 bytes.
  constexpr std::int64_t kManyTokens = (std::int64_t{1} << 60) + 1;
  const auto good = [](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto column,
        ColumnParallelLinear::Create(worker, comm, {.in_features = 0, .out_features = 3}));
    const Tensor x = Tensor::View(nullptr, {2, 0}, DType::kFloat32);
    return column.Forward(x).status();
  };
  const auto bad_column = [=](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto column,
        ColumnParallelLinear::Create(worker, comm, {.in_features = 0, .out_features = 3}));
    return column.Forward(Tensor::View(nullptr, {kManyTokens, 0}, DType::kFloat32)).status();
  };
  constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
  RequireOthersHear(good, bad_column, kExhausted, "bytes asked for on the CPU");
  const auto row = [](std::int64_t tokens) {
    return [=](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          auto layer,
          RowParallelLinear::Create(worker, comm, {.in_features = 0, .out_features = 1}));
      return layer.Forward(Tensor::View(nullptr, {tokens, 0}, DType::kFloat32)).status();
    };
  };
  RequireOthersHear(row(2), row(kManyTokens), kExhausted, "bytes asked for on the CPU");
  // All alike: each by itself, unless it has heard of another first.
  const auto create = [](std::int64_t features) {
    return [=](Worker& worker, Communicator& comm) {
      return Parameter::Create(worker, comm, "p", {features}, Parameter::kReplicated,
                               DType::kFloat32)
          .status();
    };
  };
  auto ranks = HostThreads::Create(3);
  REQUIRE_OK(ranks);
  for (const absl::Status& status : ranks->Run(create(kManyTokens))) {
    REQUIRE((status.code() == kExhausted || absl::IsAborted(status)));
    REQUIRE(Says(status, "bytes asked for on the CPU"));
  }
}

TEST_CASE("What a layer's own math refuses on one rank, before or after its collective, all hear") {
  const auto column = [](bool bad) {
    return [=](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          auto layer,
          ColumnParallelLinear::Create(worker, comm, {.in_features = 4, .out_features = 9}));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({3, 4}, DType::kFloat32));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor strided, Strided(worker, 3, 4));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, worker.Zeros({3, 3}, DType::kFloat32));
      // The sum of the gradients of x has met by then.
      return layer.Backward(bad ? strided : x, grad_out).status();
    };
  };
  RequireOthersHear(column(false), column(true), "stride");
  const auto row = [](bool bad) {
    return [=](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          auto layer,
          RowParallelLinear::Create(worker, comm, {.in_features = 9, .out_features = 4}));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({3, 3}, DType::kFloat32));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor strided, Strided(worker, 3, 3));
      return layer.Forward(bad ? strided : x).status();
    };
  };
  RequireOthersHear(row(false), row(true), "stride");
  const auto mlp = [](bool bad) {
    return [=](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          auto layer,
          ParallelMlp::Create(worker, comm,
                              {.in_features = 4, .hidden_features = 9, .out_features = 2}));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({3, 4}, DType::kFloat32));
      ParallelMlp::Activations kept;
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, layer.Forward(x, &kept));
      if (bad) {
        LOCKSTEP_ASSIGN_OR_RETURN(kept.before, Strided(worker, 3, 3));
      }
      return layer.Backward(x, kept, y).status();
    };
  };
  RequireOthersHear(mlp(false), mlp(true), "stride");
}

}  // namespace lockstep::testing
