// How the tests of the layers see a sharded layer: as the unsharded one looks, full arrays in and
// out, so that one body compares any two layers.
#ifndef LOCKSTEP_TESTS_LAYERS_SHARDED_H_
#define LOCKSTEP_TESTS_LAYERS_SHARDED_H_

#include <functional>
#include <vector>

#include "lockstep/layers/linear.h"
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/tests/layers/array.h"
#include "lockstep/tests/ranks.h"

namespace lockstep::testing {

/// On the CPU, or on the devices that LOCKSTEP_TEST_DEVICES names ("cuda:0"). For cases tagged
/// [gpu].
absl::StatusOr<Ranks> CreateRanks(int world_size);

/// One rank's layer. Calls are collectives of its group.
struct FullLayer {
  std::function<absl::StatusOr<Tensor>(const Tensor& x)> forward;
  std::function<absl::StatusOr<Tensor>(const Tensor& x, const Tensor& grad_out, BackwardOptions)>
      backward;
  std::vector<Parameter*> parameters;
};
using LayerMaker = std::function<absl::StatusOr<FullLayer>(Worker&, Communicator&)>;

LayerMaker Make(Linear::Options options);
LayerMaker Make(ColumnParallelLinear::Options options);
LayerMaker Make(RowParallelLinear::Options options);
LayerMaker Make(ParallelMlp::Options options);
/// The same of two unsharded layers.
LayerMaker MakeUnsharded(ParallelMlp::Options options);

/// What goes into a pass, in full: the parameters' values in the layer's order, the input and the
/// gradient of the result.
struct Inputs {
  DType dtype;
  std::vector<Array> parameters;
  Array x;
  Array grad_out;

  /// Of linear layers on each other, features[i] -> features[i + 1].
  static Inputs Uniform(DType dtype, std::int64_t tokens, const std::vector<std::int64_t>& features,
                        bool bias);
};

/// What comes out, in full.
struct Pass {
  Array y;
  Array grad_x;
  std::vector<Array> gradients;
};

/// Loads the parameters, then goes forward and backward. Fails if the layer changed its inputs.
absl::StatusOr<Pass> RunPass(Worker& worker, Communicator& comm, const FullLayer& layer,
                             const Inputs& inputs, BackwardOptions options = {});
/// The passes of all ranks.
absl::StatusOr<std::vector<Pass>> RunPasses(Ranks& group, const LayerMaker& make,
                                            const Inputs& inputs);

/// The same pass, by central differences of sum(y * grad_out).
absl::StatusOr<Pass> DifferencePass(Worker& worker, const FullLayer& layer, const Inputs& inputs);

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_LAYERS_SHARDED_H_
