// The threads that run the ranks: one standing thread per rank, woken together, joined together.
#ifndef LOCKSTEP_RUNTIME_EXECUTOR_H_
#define LOCKSTEP_RUNTIME_EXECUTOR_H_

#include <exception>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/device.h"
#include "lockstep/runtime/worker.h"

namespace lockstep {

namespace internal {

class TaskObservers;
struct ExecutorState;

}  // namespace internal

/// Runs a function once per rank, each on that rank's standing thread.
///
///   LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 4}));
///   absl::Status status = executor->Run([&](Worker& worker) -> absl::Status {
///     return TrainStep(worker);   // four threads are in here at once
///   });
///
/// A thread without work stays awake for 50 microseconds, yielding its core to any thread that
/// wants it, and then sleeps. A rank that fails aborts every barrier created from this executor, so
/// that no other rank waits for it. After a failure the executor is ready for the next Run; a
/// thread that ended itself (pthread_exit) is replaced.
///
/// A rank has the same Worker, at the same address, in every Run for as long as the executor lives,
/// after a failure too. So a task may keep a reference to it, and what was made with it (tensors,
/// layers, graphs), from one Run to the next. Whatever the tasks capture by reference is shared by
/// the ranks' threads: any of them may read what nobody writes.
///
/// One Run at a time, from any thread but the ranks' own. The destructor waits for a Run in flight.
/// Called from inside one of the executor's own tasks, it does not wait: the Run in flight returns
/// kFailedPrecondition, and the threads end with their tasks.
///
/// In a forked child Run returns kUnavailable, and the destructor returns at once. A child that was
/// forked inside a task ends with that task.
class Executor {
 public:
  struct Options {
    /// Ranks are dealt over the devices in order: rank r runs on
    /// devices[r * devices.size() / world_size].
    std::vector<Device> devices = {Device::Cpu()};
    /// Number of ranks, at most 1000; 0 means one per device.
    int world_size = 0;
    /// Binds each rank's thread to a core of its own: near its device, within the calling thread's
    /// CPU mask, and where no other thread of the process is bound. Does nothing if there are fewer
    /// such cores than ranks, or in a build without hwloc: see pinning(). Leave it off where the
    /// host places threads itself.
    bool pin_threads = false;
  };

  /// kInvalidArgument: no device, or a world_size that is not 0 and outside
  /// [number of devices, 1000]. kUnavailable: a device that this build or machine lacks.
  /// kResourceExhausted: the system gives no more threads, or no more memory.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(Options options);
  ~Executor();

  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// These four never change. Any thread may ask, a task's too.
  int world_size() const;
  /// The device of each rank.
  const std::vector<Device>& rank_devices() const;
  /// The stream of each rank's worker, valid as long as the executor.
  std::vector<Stream> rank_streams() const;
  /// "rank 0 on CPU 2, rank 1 on CPU 3", or why the ranks' threads are not pinned.
  absl::string_view pinning() const;

  /// Runs `task` once per rank and returns when every rank has returned: OK, or the unchanged
  /// status of the rank that failed first. Work that the tasks queued on GPUs may still be running
  /// then. An exception is a failure: kInternal with its type and text, or kResourceExhausted for
  /// std::bad_alloc. kFailedPrecondition, at once and without running anything, when called from a
  /// task of this executor or while another Run is in flight. Everything that the caller wrote
  /// before is visible to the tasks, and everything that they wrote is visible to it after.
  absl::Status Run(absl::FunctionRef<absl::Status(Worker&)> task);

  /// The rank whose status the last Run returned; -1 if that was OK, or there was no Run. For the
  /// thread that calls Run, between two Runs.
  int failed_rank() const;
  /// The exception behind the last Run's status, for std::rethrow_exception; null if that rank did
  /// not throw. For the thread that calls Run, between two Runs.
  std::exception_ptr exception() const;

  /// Internal: through these a CollectiveBarrier learns of tasks that start and end.
  const std::shared_ptr<internal::TaskObservers>& observers() const;

 private:
  explicit Executor(std::shared_ptr<internal::ExecutorState> state);
  static absl::StatusOr<std::unique_ptr<Executor>> Make(const Options& options);
  absl::Status RunOnce(absl::FunctionRef<absl::Status(Worker&)> task);

  std::shared_ptr<internal::ExecutorState> state_;
};

}  // namespace lockstep

#endif  // LOCKSTEP_RUNTIME_EXECUTOR_H_
