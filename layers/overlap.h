// Hiding an all-reduce behind a matrix product on the same GPU.
#ifndef LOCKSTEP_LAYERS_OVERLAP_H_
#define LOCKSTEP_LAYERS_OVERLAP_H_

#include <bit>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

/// How a layer runs a product and an all-reduce that may overlap. No bit depends on it.
struct OverlapChoice {
  /// Of each GPU, for the all-reduce beside the product. 0: the one runs behind the other.
  int multiprocessors = 0;
  /// RowParallelLinear: the product's rows are cut into parts, and each part's sum runs beside the
  /// next part's product. The last part is one wave (what a GPU computes at a time), and so are the
  /// others, or each is as long as those behind it together; the first takes what is left over.
  bool equal_parts = false;
  /// What both took together on the slowest rank, and what they took one behind the other. 0: not
  /// measured.
  double us = 0;
  double sequence_us = 0;
};

namespace internal {

/// Multiprocessors for an all-reduce that runs beside a product. Measured on two H200: two carry
/// too little, and more than four cost the product a wave.
inline constexpr int kBesideProduct = 4;

/// Rows of a product's result of so many columns that the GPU computes at a time when it leaves
/// kBesideProduct of its multiprocessors to others; 0 if it has no more.
std::int64_t RowsPerWave(int multiprocessors, std::int64_t columns);

/// Waves of a result [rows, columns] that is summed over the ranks; 0 where there is too little to
/// overlap: less than two waves or 8 MiB, or where the waves are not known: on the CPU, of types
/// that are not of 16 bits.
std::int64_t WavesToOverlap(int multiprocessors, DType dtype, std::int64_t rows,
                            std::int64_t columns);

/// Rows of the parts (see OverlapChoice), whole waves but for the first. wave > 0.
std::vector<std::int64_t> OverlapParts(std::int64_t rows, std::int64_t wave, bool equal);

/// Multiprocessors for a product beside such an all-reduce, as in MatMulOptions.
inline int LeftBeside(const OverlapChoice& way, int multiprocessors) {
  return way.multiprocessors == 0 ? 0 : multiprocessors - way.multiprocessors;
}

/// A collective: each number becomes the largest of all ranks'.
absl::Status MaxOverRanks(Worker& worker, Communicator& comm, absl::Span<double> values);
/// A collective on GPUs: the fewest multiprocessors of any rank's. 0 on the CPU and in a group of
/// one, where nothing is overlapped. What the ranks decide by it they decide alike.
absl::StatusOr<int> LeastMultiprocessors(Worker& worker, Communicator& comm);

/// What a layer has chosen for about so many waves: up to each power of two.
class OverlapChoices {
 public:
  /// Runs what is to be fast in one of the ways.
  using Run = absl::FunctionRef<absl::Status(const OverlapChoice& way)>;

  bool Knows(std::int64_t waves) const { return known_.contains(KeyOf(waves)); }
  /// The sequence until it is known.
  OverlapChoice Find(std::int64_t waves) const;
  void Remember(std::int64_t waves, const OverlapChoice& choice) {
    known_.insert_or_assign(KeyOf(waves), choice);
  }
  /// A collective: the fastest of the ways, each run some times, and remembers it. The first way is
  /// the sequence.
  absl::Status Measure(Worker& worker, Communicator& comm, std::int64_t waves,
                       absl::Span<const OverlapChoice> ways, Run run);

 private:
  static int KeyOf(std::int64_t waves) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(waves)));
  }

  std::map<int, OverlapChoice> known_;
};

}  // namespace internal
}  // namespace lockstep

#endif  // LOCKSTEP_LAYERS_OVERLAP_H_
