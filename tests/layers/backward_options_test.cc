#include <limits>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

struct LayerCase {
  const char* name;
  std::vector<std::int64_t> features;
  LayerMaker (*make)(DType);
};

const LayerCase kLayers[] = {
    {"Linear",
     {5, 7},
     [](DType dtype) {
       return Make(Linear::Options{.in_features = 5, .out_features = 7, .dtype = dtype});
     }},
    {"ColumnParallelLinear",
     {5, 7},
     [](DType dtype) {
       return Make(
           ColumnParallelLinear::Options{.in_features = 5, .out_features = 7, .dtype = dtype});
     }},
    {"RowParallelLinear",
     {5, 7},
     [](DType dtype) {
       return Make(RowParallelLinear::Options{.in_features = 5, .out_features = 7, .dtype = dtype});
     }},
    {"ParallelMlp", {5, 9, 7}, [](DType dtype) {
       return Make(ParallelMlp::Options{
           .in_features = 5, .hidden_features = 9, .out_features = 7, .dtype = dtype});
     }}};

// The gradients of a pass that writes over NaN, then those of one more that adds to them.
absl::Status OverwriteThenAdd(Worker& worker, Communicator& comm, const FullLayer& layer,
                              const Inputs& inputs, Pass& written, Pass& added) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const Parameter* parameter : layer.parameters) {
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, kNaN, parameter->gradient()));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(written, RunPass(worker, comm, layer, inputs, {.accumulate = false}));
  LOCKSTEP_ASSIGN_OR_RETURN(added, RunPass(worker, comm, layer, inputs));
  return absl::OkStatus();
}

}  // namespace

TEST_CASE("Without accumulate, Backward writes over whatever the gradients held", "[gpu]") {
  auto group = CreateRanks(GENERATE(1, 3));
  REQUIRE_OK(group);
  for (const LayerCase& layer : kLayers) {
    for (const DType dtype : kFloatingTypes) {
      for (const std::int64_t tokens : {0, 4}) {
        CAPTURE(layer.name, Name(dtype).data(), tokens, group->world_size());
        const LayerMaker make = layer.make(dtype);
        const Inputs inputs = Inputs::Uniform(dtype, tokens, layer.features, /*bias=*/true);
        const auto fresh = RunPasses(*group, make, inputs);
        REQUIRE_OK(fresh);
        Pass written;
        Pass added;
        REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
          LOCKSTEP_ASSIGN_OR_RETURN(FullLayer mine, make(worker, comm));
          Pass overwrites;
          Pass adds;
          LOCKSTEP_RETURN_IF_ERROR(OverwriteThenAdd(worker, comm, mine, inputs, overwrites, adds));
          if (worker.rank() != 0) return absl::OkStatus();
          written = overwrites;
          added = adds;
          return absl::OkStatus();
        }));
        const double far = dtype == DType::kFloat64 ? 1e-12 : 1e-5;
        for (std::size_t i = 0; i < fresh->front().gradients.size(); ++i) {
          Array expected = fresh->front().gradients[i];
          REQUIRE(Distance(written.gradients[i], expected) <= far);
          for (double& value : expected.values) value *= 2;
          REQUIRE(Distance(added.gradients[i], expected) <= far);
        }
      }
    }
  }
}

}  // namespace lockstep::testing
