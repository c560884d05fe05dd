// A linear layer whose output features are split over the ranks.
#ifndef LOCKSTEP_LAYERS_COLUMN_PARALLEL_LINEAR_H_
#define LOCKSTEP_LAYERS_COLUMN_PARALLEL_LINEAR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "lockstep/layers/overlap.h"
#include "lockstep/layers/parameter.h"
#include "lockstep/runtime/matmul.h"

namespace lockstep {

/// Rank r holds columns r of W and b: Y_r = X W_r + b_r (Shoeybi et al., "Megatron-LM", 2019).
///
///   weight: [in_features, out_features / world_size]     bias: [out_features / world_size]
///   Forward:  no collective; with gather_output one all-gather
///   Backward: one all-reduce, of the input's gradient
///
/// PyTorch's nn.Linear stores [out_features, in_features]: load that as Orientation::kOutIn.
/// Sizes that do not divide are split unevenly (see Shard). For one seed, the full weight starts
/// the same at every world size. Keeps references to `worker` and `comm`, which must outlive it.
/// Used by the rank's thread alone.
///
/// All ranks of the group call Create, Forward and Backward, in the same order. An error on one
/// rank, such as a tensor that does not fit or a lack of memory, fails the group at once: that rank
/// gets its own error and the others kAborted with its rank, code and text, until
/// CollectiveBarrier::Reset(). Tensors are checked before any communication. On a GPU the calls
/// return before their work is done, but for a Backward that measures (see overlap).
class ColumnParallelLinear {
 public:
  struct Options {
    std::int64_t in_features = 0;
    std::int64_t out_features = 0;
    bool bias = true;
    /// Forward returns all out_features on every rank, rather than this rank's part.
    bool gather_output = false;
    /// Forward leaves adding bias() to the caller (to fuse it with what follows). bias() is this
    /// rank's part; with gather_output the caller needs its GatherFull(). Backward still computes
    /// the bias's gradient.
    bool skip_bias_add = false;
    DType dtype = DType::kFloat32;
    std::uint64_t seed = 0;
  };

  /// A collective. kInvalidArgument: negative sizes, or a type that is not floating.
  /// kFailedPrecondition, on every rank: the ranks give different options. The text names each of
  /// them with its values and ranks; the group goes on.
  static absl::StatusOr<ColumnParallelLinear> Create(Worker& worker, Communicator& comm,
                                                     Options options);

  /// x: [tokens, in_features], replicated -> [tokens, out_features / world_size], split on the last
  /// axis; replicated [tokens, out_features] with gather_output.
  absl::StatusOr<Tensor> Forward(const Tensor& x);

  /// Takes the x that was given to Forward and the gradient of its result, adds to the parameters'
  /// gradients (see BackwardOptions) and returns the gradient of x.
  /// grad_out: like Forward's result (with gather_output: replicated) -> [tokens, in_features],
  /// replicated.
  absl::StatusOr<Tensor> Backward(const Tensor& x, const Tensor& grad_out,
                                  BackwardOptions options = {});

  /// How Backward runs for so many tokens: its all-reduce may be hidden behind the product of the
  /// weight's gradient. Measured by the first Backward of about as many, as in RowParallelLinear,
  /// with memory for another gradient of the weight and of the input; without, it is the sequence.
  OverlapChoice overlap(std::int64_t tokens) const { return overlaps_.Find(WavesOf(tokens)); }

  Parameter& weight() { return weight_; }
  const Parameter& weight() const { return weight_; }
  /// Null without a bias.
  Parameter* bias() { return bias_.has_value() ? &*bias_ : nullptr; }
  /// All of them, for an optimizer.
  std::vector<Parameter*> parameters();

 private:
  friend class ParallelMlp;

  // Create() of options that have been checked and compared, with LeastMultiprocessors().
  static absl::StatusOr<ColumnParallelLinear> Make(Worker& worker, Communicator& comm,
                                                   Options options, int multiprocessors);
  ColumnParallelLinear(Worker& worker, Communicator& comm, Options options, int multiprocessors,
                       Parameter weight, std::optional<Parameter> bias);
  absl::Status CheckInput(absl::string_view call, const Tensor& x) const;
  // 0: too little to overlap.
  std::int64_t WavesOf(std::int64_t tokens) const;
  // The sum of the input's gradient, and the parameters' gradients.
  absl::Status SumAndGradients(const Tensor& x, const Tensor& grad_out, const Tensor& grad_x,
                               BackwardOptions options);
  absl::Status ChooseOverlap(const Tensor& x, const Tensor& grad_out, const Tensor& grad_x,
                             BackwardOptions options);
  // The product of the weight's gradient: the same bits in all ways.
  MatMulOptions Beside(const OverlapChoice& way, const Tensor& x) const;
  // Of the input's gradient, which goes on beside what follows if there is something to gain.
  absl::StatusOr<PendingCollective> StartSum(const Tensor& in, const Tensor& out,
                                             const OverlapChoice& way);

  Worker* worker_;
  Communicator* comm_;
  Options options_;
  int multiprocessors_;
  Parameter weight_;
  std::optional<Parameter> bias_;
  internal::OverlapChoices overlaps_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_COLUMN_PARALLEL_LINEAR_H_
