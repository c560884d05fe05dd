// A group of ranks in one process, and the barrier at which they meet.
#ifndef LOCKSTEP_COLLECTIVE_COLLECTIVE_BARRIER_H_
#define LOCKSTEP_COLLECTIVE_COLLECTIVE_BARRIER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/collective/transport_kind.h"
#include "lockstep/runtime/executor.h"

namespace lockstep {

namespace internal {
class LocalGroup;
}

struct CollectiveBarrierOptions {
  /// How long a rank waits for the others in one round before the round fails for all; positive.
  /// Measured on CLOCK_MONOTONIC: neither changes of the wall clock nor time that the machine
  /// sleeps count, but time in which the process is stopped does (SIGSTOP, a debugger). If it is
  /// stopped for longer than this, the round may complete or fail when it goes on, the same for all
  /// ranks.
  absl::Duration timeout = absl::Seconds(60);
  /// Searches the inputs of floating-point reductions for NaN first, at the cost of one more pass
  /// over them. A round with a NaN fails on every rank, naming rank and index, before any byte
  /// moves; the group is not poisoned. For ranks on the CPU alone.
  bool check_nan = false;
  /// How data moves. All transports give the same bits.
  TransportKind transport = TransportKind::kAuto;
  AllReduceTuning tuning = {};
};

/// A group of ranks in this process. One 64-bit word gives the verdict on each of its collectives,
/// without a lock, and every wait has a deadline. The meeting itself is collective/barrier_word.h.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(*executor));
///   absl::Status status = executor->Run([&](Worker& worker) {
///     return barrier->communicator(worker.rank()).AllReduce(x[worker.rank()], x[worker.rank()]);
///   });
///   if (!status.ok()) LOCKSTEP_RETURN_IF_ERROR(barrier->Reset());   // poisoned until then
///
/// A group made from an executor aborts when a rank's task fails, or ends while others wait for it.
/// A host with its own threads makes the group from their streams; there a rank that gives up
/// between two collectives says so by Communicator::Fail(), and anyone else by Abort(). A cancelled
/// thread (pthread_cancel) leaves a collective when the round ends: no call here is a cancellation
/// point.
///
/// In a forked child every call on a group of the parent returns kUnavailable at once, and the
/// destructor waits for nobody.
class CollectiveBarrier {
 public:
  using Options = CollectiveBarrierOptions;

  /// One rank per rank of the executor, which may be destroyed before the group or after it.
  /// kInvalidArgument: the timeout is not positive. kUnavailable: the transport that was asked for
  /// cannot serve these devices, check_nan was asked for on GPUs, or the executor belongs to the
  /// parent of this forked process.
  static absl::StatusOr<std::unique_ptr<CollectiveBarrier>> Create(Executor& executor,
                                                                   Options options = {});
  /// One rank per stream (that of the rank's Worker), for the host's own threads. Errors as above;
  /// also kInvalidArgument: no stream, or more than 1000.
  static absl::StatusOr<std::unique_ptr<CollectiveBarrier>> Create(absl::Span<const Stream> streams,
                                                                   Options options = {});

  /// Aborts, waits until every rank has left, and frees. Must not be called from inside a
  /// collective, and no rank may begin a call any more. Groups that were split off live on.
  ~CollectiveBarrier();
  CollectiveBarrier(const CollectiveBarrier&) = delete;
  CollectiveBarrier& operator=(const CollectiveBarrier&) = delete;

  int world_size() const;
  /// This rank's end of the group: one object, the same in every Run, valid as long as the barrier.
  /// Any thread may ask for it; one at a time may use it (see Communicator). For a rank that does
  /// not exist, an end whose every call returns kInvalidArgument.
  Communicator& communicator(int rank);

  /// Fails the round in flight and all later ones with kAborted and `cause`. From any thread, any
  /// number of times: the first cause stays.
  void Abort(const absl::Status& cause);

  /// Heals a poisoned group: the next round is exact again. From any thread, when the ranks are
  /// done with the failed round; waits for those still leaving it, up to the timeout (then
  /// kDeadlineExceeded, and nothing has changed). A rank that missed the failure and arrives later
  /// gets kCancelled once, and touches nothing. Does nothing to a healthy group. kInternal: a
  /// device failed for good.
  absl::Status Reset();

  /// OK, or why the group is poisoned: the first cause, in its own code. From any thread.
  absl::Status status() const;

  /// Bytes that the group holds for a rank for as long as it lives: on the rank's GPU (buffers of
  /// the peer transport: 51 MiB with the default tuning, for any number of ranks) and pinned in the
  /// host's memory (buffers of the staged transport: the rank's largest input so far). 0 on the
  /// CPU, and for a rank that does not exist. The device's context, the streams and the worker's
  /// own memory are not counted. From any thread.
  std::int64_t device_bytes(int rank) const;
  std::int64_t pinned_bytes(int rank) const;

  /// Which transport moves the data ("cpu"), and why that one.
  absl::string_view transport() const;
  absl::string_view transport_reason() const;

 private:
  explicit CollectiveBarrier(std::shared_ptr<internal::LocalGroup> group);

  std::shared_ptr<internal::LocalGroup> group_;
  // The ends of the ranks, and of one that does not exist.
  std::vector<std::unique_ptr<Communicator>> communicators_;
  std::unique_ptr<Communicator> no_rank_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_COLLECTIVE_COLLECTIVE_BARRIER_H_
