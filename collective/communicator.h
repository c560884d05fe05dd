// One rank's end of a group of ranks.
#ifndef LOCKSTEP_COLLECTIVE_COMMUNICATOR_H_
#define LOCKSTEP_COLLECTIVE_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "lockstep/collective/collective_call.h"
#include "lockstep/runtime/tensor.h"

namespace lockstep {

/// What a rank has seen of its group so far. Monotonic.
struct CommunicatorStats {
  /// Calls that went as far as meeting the others, including failed ones; a split counts as one.
  std::uint64_t num_collectives = 0;
  /// Rounds in which this rank arrived last, so that the others waited for it.
  std::uint64_t num_last_arrivals = 0;
  /// Time this rank waited for others, in all and in the longest single wait.
  absl::Duration total_wait;
  absl::Duration max_wait;
  /// Time this rank spent inside collectives, waits included.
  absl::Duration total_time;
};

class Communicator;

/// How a collective shares a GPU with the work beside it.
struct AsyncOptions {
  /// Multiprocessors of each GPU that its kernels may hold at once; 0: as many as are fastest when
  /// it is alone there. Of the peer transport, for tensors aligned to 16 bytes; the least that a
  /// rank asks for counts. Four sum at a third of the full rate (two H200), and stand in pairs, so
  /// that a matrix product that leaves them four (see MatMulOptions) is hardly slower than alone.
  /// No bit depends on it.
  int max_multiprocessors = 0;
};

/// A collective beside which the rank's stream goes on:
///
///   LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum, comm.AllReduceAsync(grad_x, grad_x));
///   ... queue work that needs no grad_x ...
///   LOCKSTEP_RETURN_IF_ERROR(sum.Wait());   // what is queued from here on finds it
///
/// Until then nobody may touch its tensors. It keeps them alive, but not the memory behind a
/// Tensor::View. Must not outlive its Communicator; waits when it is destroyed or assigned to. Used
/// by the rank's thread alone.
class [[nodiscard]] PendingCollective {
 public:
  PendingCollective(PendingCollective&& other) noexcept
      : comm_(std::exchange(other.comm_, nullptr)),
        in_(std::move(other.in_)),
        out_(std::move(other.out_)) {}
  PendingCollective& operator=(PendingCollective&& other) noexcept;
  ~PendingCollective() { Wait().IgnoreError(); }

  /// Makes the rank's stream wait for this call and for those before it. The host does not wait.
  /// Does nothing the second time.
  absl::Status Wait();

 private:
  friend class Communicator;
  PendingCollective(Communicator& comm, const Tensor& in, const Tensor& out)
      : comm_(&comm), in_(in), out_(out) {}

  Communicator* comm_;
  Tensor in_;
  Tensor out_;
};

/// The collectives. All ranks of a group make the same calls in the same order, each on its own
/// thread, and every call returns the same verdict on every rank: OK, or an error that names the
/// round, the culprit and what each rank asked for.
///
///   Communicator& comm = barrier->communicator(worker.rank());
///   LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x, x));   // in place: the same tensor twice
///
/// After an error the group is poisoned until CollectiveBarrier::Reset(): each later call on any
/// rank returns kAborted at once, with the first cause in its text.
///
/// Tensors are contiguous, on this rank's device, aligned to their element size, of any DType and
/// any count, zero included. Shapes that must be the same on every rank are compared axis by axis:
/// [3, 4] does not go with [4, 3], nor [12] with [1, 12].
///
/// Input and output may be the same tensor where their shapes are equal. Along axis 0, the output
/// of a reduce-scatter may be this rank's own part of the input, and the input of an all-gather
/// this rank's own part of the output. They may not overlap otherwise, and no tensor of one rank
/// may overlap an output of another. Inputs are only read: ranks may share one, even in read-only
/// memory. A group of one copies input to output and waits for nobody.
///
/// The tensors' memory must stay until the work is done. On the CPU that is when the call returns:
/// no other rank reads this rank's input any more. On a GPU the call returns earlier, and the work
/// is done when the rank's stream has come past it.
///
/// On GPUs every GPU of the group must have access to a tensor's memory, whatever its size (with
/// the staged transport, only the rank's own). Worker::Empty, cudaMalloc, cudaMallocManaged and
/// cudaHostAlloc give such memory; cudaMallocAsync's default pool does not.
///
/// A rank's calls come from one thread at a time: its own, or one that was given its end. rank(),
/// world_size() and stats() may be called by any thread at any time.
///
/// Codes: kInvalidArgument on the rank whose arguments are wrong (the others get kAborted),
/// kFailedPrecondition when ranks ask for different things, kDeadlineExceeded, kAborted, kCancelled
/// (see runtime/status.h).
///
/// Implemented by the in-process group (CollectiveBarrier makes it; local_communicator.cc is the
/// code) and by optional bridges to engines past one process.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  /// From any thread. Each number was true at some moment of the call, but not all at the same one.
  virtual CommunicatorStats stats() const = 0;

  /// out = op over all ranks' in.  in, out: one shape, the same on every rank.
  absl::Status AllReduce(const Tensor& in, const Tensor& out, ReduceOp op = ReduceOp::kSum);

  /// out = this rank's part of op over all ranks' in, which is split along `axis` (-1: the last) in
  /// rank order. in: the same shape on every rank. out: like in but for `axis`, whose extents may
  /// differ by rank and add up to in's.
  absl::Status ReduceScatter(const Tensor& in, const Tensor& out, ReduceOp op = ReduceOp::kSum,
                             int axis = 0);

  /// out = all ranks' in, joined along `axis` (-1: the last) in rank order.
  /// in: equal but for `axis`, whose extents may differ by rank. out: that axis is their sum.
  absl::Status AllGather(const Tensor& in, const Tensor& out, int axis = 0);

  /// out = root's in.  in, out: one shape, the same on every rank; in is read on the root alone.
  absl::Status Broadcast(const Tensor& in, const Tensor& out, int root);

  /// Sends part s of in to rank s, and receives rank s's part into part s of out. Whatever the
  /// shapes, the parts are runs of elements in row-major order, one after the other in rank order;
  /// equal ones, unless counts (elements, one per rank) are given. What s sends to r must be what r
  /// expects from it. In place on all ranks or on none, and then without counts.
  absl::Status AllToAll(const Tensor& in, const Tensor& out,
                        absl::Span<const std::int64_t> send_counts = {},
                        absl::Span<const std::int64_t> receive_counts = {});

  /// The same calls on a stream of their own: behind the work that the rank's stream holds now, and
  /// beside what it is given until PendingCollective::Wait(). The ranks still meet before the call
  /// returns; on the CPU the work is done by then. These calls stay in order with each other and
  /// with the calls above, which wait for them, so in one round some ranks may call one form and
  /// some the other. Of two groups that share ranks, one at a time may have such calls under way.
  /// If other groups have taken a GPU's room before a group's first such call, all of the group's
  /// run on the rank's stream itself.
  absl::StatusOr<PendingCollective> AllReduceAsync(const Tensor& in, const Tensor& out,
                                                   ReduceOp op = ReduceOp::kSum,
                                                   AsyncOptions options = {});
  absl::StatusOr<PendingCollective> ReduceScatterAsync(const Tensor& in, const Tensor& out,
                                                       ReduceOp op = ReduceOp::kSum, int axis = 0);
  absl::StatusOr<PendingCollective> AllGatherAsync(const Tensor& in, const Tensor& out,
                                                   int axis = 0);
  absl::StatusOr<PendingCollective> BroadcastAsync(const Tensor& in, const Tensor& out, int root);
  absl::StatusOr<PendingCollective> AllToAllAsync(
      const Tensor& in, const Tensor& out, absl::Span<const std::int64_t> send_counts = {},
      absl::Span<const std::int64_t> receive_counts = {});

  /// Returns when every rank has called it.
  absl::Status Barrier();

  /// Splits the group: ranks with the same `color` become a group of their own, numbered by `key`,
  /// then by rank. A rank with a negative color gets none: null. A collective. The new group aborts
  /// with the executor it came from, but not with its parent.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) = 0;

  /// Tells the others that this rank gives up, and returns `status`. Their current and next calls
  /// fail with kAborted, naming this rank and the code and text of `status`, rather than wait for
  /// it until their deadline. For errors between two collectives; a collective that fails tells the
  /// others itself.
  ///
  ///   if (x.extent(1) != in_features) return comm.Fail(absl::InvalidArgumentError(...));
  ///
  /// This rank's own calls fail as well until CollectiveBarrier::Reset(), in a group of one too.
  /// Returns at once. OK does nothing, and on a poisoned group the first cause stays. In a forked
  /// child nobody hears of it.
  virtual absl::Status Fail(absl::Status status) = 0;

  /// Waits until all work that this rank has queued so far is done, collectives and others. OK, or
  /// why the group failed meanwhile: on a GPU a call returns before its work is done, and that a
  /// rank never comes to a replayed graph's collective is found out on the device. kAborted, like
  /// any call, if the group had failed before.
  virtual absl::Status Synchronize() = 0;

 protected:
  Communicator(int rank, int world_size, Device device)
      : rank_(rank), world_size_(world_size), device_(device) {}

  /// Carries out a call whose arguments this rank has checked.
  virtual absl::Status Execute(const CollectiveCall& call) = 0;
  /// Refuses a call with `error`, and tells the others.
  virtual absl::Status Refuse(const CollectiveCall& call, absl::Status error) = 0;

  /// Makes the rank's stream wait for the calls aside (see CollectiveCall). By default there is no
  /// side stream, and they work as the others do.
  virtual absl::Status JoinSideStream() { return absl::OkStatus(); }

  /// For a Communicator that stands in front of another one: where that is, and its parts of the
  /// three calls above.
  static Device DeviceOf(const Communicator& inner) { return inner.device_; }
  static absl::Status ExecuteOn(Communicator& inner, const CollectiveCall& call) {
    return inner.Execute(call);
  }
  static absl::Status RefuseOn(Communicator& inner, const CollectiveCall& call,
                               absl::Status error) {
    return inner.Refuse(call, std::move(error));
  }
  static absl::Status JoinSideStreamOn(Communicator& inner) { return inner.JoinSideStream(); }

 private:
  friend class PendingCollective;

  absl::StatusOr<PendingCollective> Aside(const Tensor& in, const Tensor& out, AsyncOptions options,
                                          absl::FunctionRef<absl::Status()> call);
  absl::Status CheckTensors(const CollectiveCall& call, const Tensor& in, const Tensor& out) const;
  // Refuses the call with what `check`, which may still change it, or CheckTensors finds, or
  // carries it out.
  absl::Status CheckAndExecute(CollectiveCall& call, const Tensor& in, const Tensor& out,
                               absl::FunctionRef<absl::Status()> check);
  absl::Status AlongAxis(CollectiveCall call, const Tensor& in, const Tensor& out, int axis);

  int rank_;
  int world_size_;
  Device device_;
  // Of the next call, which takes them along.
  std::optional<AsyncOptions> aside_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_COMMUNICATOR_H_
