// A linear layer whose input features are split over the ranks.
#ifndef LOCKSTEP_LAYERS_ROW_PARALLEL_LINEAR_H_
#define LOCKSTEP_LAYERS_ROW_PARALLEL_LINEAR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "lockstep/layers/overlap.h"
#include "lockstep/layers/parameter.h"

namespace lockstep {

/// Rank r holds rows r of W, and all of b: Y = (sum over r of X_r W_r) + b (Shoeybi et al.,
/// "Megatron-LM", 2019).
///
///   weight: [in_features / world_size, out_features]     bias: [out_features], replicated
///   Forward:  one all-reduce, of a large result on GPUs in parts where that is faster (overlap);
///             the bias is added once, after it, by every rank alike
///   Backward: no collective; with input_is_parallel = false one all-gather
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
/// return before their work is done, but for a Forward that measures (see overlap).
class RowParallelLinear {
 public:
  struct Options {
    std::int64_t in_features = 0;
    std::int64_t out_features = 0;
    bool bias = true;
    /// Whether x comes split on its last axis, as a ColumnParallelLinear leaves it. Otherwise
    /// Forward takes this rank's part of it.
    bool input_is_parallel = true;
    /// Forward leaves adding bias() to the caller (to fuse it with what follows), once and on every
    /// rank. Backward still computes the bias's gradient.
    bool skip_bias_add = false;
    DType dtype = DType::kFloat32;
    std::uint64_t seed = 0;
  };

  /// A collective. kInvalidArgument: negative sizes, or a type that is not floating.
  /// kFailedPrecondition, on every rank: the ranks give different options. The text names each of
  /// them with its values and ranks; the group goes on.
  static absl::StatusOr<RowParallelLinear> Create(Worker& worker, Communicator& comm,
                                                  Options options);

  /// x: [tokens, in_features / world_size], split on the last axis (without input_is_parallel:
  /// [tokens, in_features], replicated) -> [tokens, out_features], replicated.
  absl::StatusOr<Tensor> Forward(const Tensor& x);

  /// Takes the x that was given to Forward and the gradient of its result, adds to the parameters'
  /// gradients (see BackwardOptions) and returns the gradient of x.
  /// grad_out: [tokens, out_features], replicated -> like x.
  absl::StatusOr<Tensor> Backward(const Tensor& x, const Tensor& grad_out,
                                  BackwardOptions options = {});

  /// How Forward runs for so many tokens: all but the last part of the all-reduce may be hidden
  /// behind the product. The first Forward of about as many (up to the next power of two) measures
  /// it, unless a graph is being captured: it makes the product and the sum thirteen times, and
  /// waits for them.
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
  static absl::StatusOr<RowParallelLinear> Make(Worker& worker, Communicator& comm, Options options,
                                                int multiprocessors);
  RowParallelLinear(Worker& worker, Communicator& comm, Options options, int multiprocessors,
                    Parameter weight, std::optional<Parameter> bias);
  // 0: too little to overlap.
  std::int64_t WavesOf(std::int64_t tokens) const;
  // y = the sum over the ranks of x W, in the fastest of the ways, or in this one.
  absl::Status ChosenProductAndSum(const Tensor& x, const Tensor& y);
  absl::Status ProductAndSum(const Tensor& x, const Tensor& y, const OverlapChoice& way);
  // Checks x and gives this rank's part of it.
  absl::StatusOr<Tensor> PartOf(absl::string_view call, const Tensor& x) const;

  Worker* worker_;
  Communicator* comm_;
  Options options_;
  int multiprocessors_;
  Parameter weight_;
  std::optional<Parameter> bias_;
  internal::OverlapChoices overlaps_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_ROW_PARALLEL_LINEAR_H_
