// Two linear layers with an activation between them, split so that a pass needs one all-reduce in
// each direction.
#ifndef LOCKSTEP_LAYERS_PARALLEL_MLP_H_
#define LOCKSTEP_LAYERS_PARALLEL_MLP_H_

#include <cstdint>
#include <vector>

#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"

namespace lockstep {

/// y = down(f(up(x))), `up` split by columns and `down` by rows.
///
///   up:   [in_features, hidden_features / world_size]     bias: [hidden_features / world_size]
///   down: [hidden_features / world_size, out_features]    bias: [out_features], replicated
///
/// PyTorch's nn.Linear stores the transposes: load those as Orientation::kOutIn.
///
///   ParallelMlp::Activations kept;
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, mlp.Forward(x, &kept));
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x, mlp.Backward(x, kept, grad_y));
///
/// Forward takes one all-reduce, and so does Backward. For one seed, the full weights start the
/// same at every world size. Keeps references to `worker` and `comm`, which must outlive it. Used
/// by the rank's thread alone.
///
/// All ranks of the group call Create, Forward and Backward, in the same order. An error on one
/// rank, such as a tensor that does not fit or a lack of memory, fails the group at once: that rank
/// gets its own error and the others kAborted with its rank, code and text, until
/// CollectiveBarrier::Reset(). Tensors are checked before any communication. On a GPU the calls
/// return before their work is done, but for those in which a layer measures (see its overlap()).
class ParallelMlp {
 public:
  struct Options {
    std::int64_t in_features = 0;
    std::int64_t hidden_features = 0;
    std::int64_t out_features = 0;
    Activation activation = Activation::kGelu;
    bool bias = true;
    DType dtype = DType::kFloat32;
    std::uint64_t seed = 0;
  };

  /// What Backward needs from Forward: the hidden features before and after the activation. Both:
  /// [tokens, hidden_features / world_size], split on the last axis.
  struct Activations {
    Tensor before;
    Tensor after;
  };

  /// A collective. kInvalidArgument: negative sizes, or a type that is not floating.
  /// kFailedPrecondition, on every rank: the ranks give different options. The text names each of
  /// them with its values and ranks; the group goes on.
  static absl::StatusOr<ParallelMlp> Create(Worker& worker, Communicator& comm, Options options);

  /// x: [tokens, in_features], replicated -> [tokens, out_features], replicated. `kept` may be null
  /// for inference.
  absl::StatusOr<Tensor> Forward(const Tensor& x, Activations* kept);
  /// Adds to the parameters' gradients (see BackwardOptions).
  /// grad_out: [tokens, out_features], replicated -> the gradient of x, [tokens, in_features],
  /// replicated.
  absl::StatusOr<Tensor> Backward(const Tensor& x, const Activations& kept, const Tensor& grad_out,
                                  BackwardOptions options = {});

  ColumnParallelLinear& up() { return up_; }
  const ColumnParallelLinear& up() const { return up_; }
  RowParallelLinear& down() { return down_; }
  const RowParallelLinear& down() const { return down_; }
  /// All of them, for an optimizer.
  std::vector<Parameter*> parameters();

 private:
  // Create() of options that have been checked and compared.
  static absl::StatusOr<ParallelMlp> Make(Worker& worker, Communicator& comm, Options options,
                                          int multiprocessors);
  ParallelMlp(Worker& worker, Communicator& comm, Activation activation, ColumnParallelLinear up,
              RowParallelLinear down);
  absl::Status CheckBackward(const Tensor& x, const Activations& kept,
                             const Tensor& grad_out) const;

  Worker* worker_;
  Communicator* comm_;
  Activation activation_;
  ColumnParallelLinear up_;
  RowParallelLinear down_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_PARALLEL_MLP_H_
