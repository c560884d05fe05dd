#include "lockstep/runtime/executor.h"

#include <cxxabi.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <typeinfo>

#include "lockstep/runtime/cuda/device.h"
#include "lockstep/runtime/handover.h"
#include "lockstep/runtime/pinning.h"
#include "lockstep/runtime/task_observer.h"

namespace lockstep {
namespace internal {

// Shared by the executor and its threads, so that it outlives an executor destroyed from inside a
// task.
struct ExecutorState {
  struct Rank {
    explicit Rank(Worker w) : worker(std::move(w)) {}
    Worker worker;
    std::thread thread;
    std::atomic<std::thread::id> thread_id;
    // Set by a thread that ends inside its task; the next Run replaces it.
    AnnotatedAtomic<bool> thread_ended{false};
  };

  int world_size() const { return static_cast<int>(ranks.size()); }

  // The rank whose thread is the calling one, or -1.
  int ThisRank() const {
    for (int rank = 0; rank < world_size(); ++rank) {
      if (ranks[rank].thread_id.load(std::memory_order_relaxed) == std::this_thread::get_id()) {
        return rank;
      }
    }
    return -1;
  }

  // Keeps the first failure of a Run.
  void Failed(int rank, const absl::Status& status, std::exception_ptr thrown) {
    const std::lock_guard lock(failure_mutex);
    if (failed_rank >= 0) return;
    failed_rank = rank;
    failure = status;
    exception = std::move(thrown);
  }

  std::vector<Device> devices;  // one per rank
  internal::Placement placement{{}, "not asked for"};
  std::deque<Rank> ranks;  // a deque, because a Rank cannot move
  Handover<NativePlatform> handover;
  Patience<NativePlatform> caller_patience;  // of the Run in flight
  std::shared_ptr<TaskObservers> observers = std::make_shared<TaskObservers>();

  AnnotatedAtomic<bool> running{false};
  std::atomic<bool> stopping{false};
  std::atomic<int> abandoned_by{-1};  // the rank that destroyed the executor from inside its task
  const absl::FunctionRef<absl::Status(Worker&)>* task = nullptr;

  std::mutex failure_mutex;
  int failed_rank = -1;
  absl::Status failure;
  std::exception_ptr exception;
};

}  // namespace internal

namespace {

using internal::ExecutorState;

// Ends a rank's part in a Run on every way out of its task: by return, by exception, and by the
// forced unwinding of pthread_exit and pthread_cancel, which destroys this and nothing else can
// see.
class TaskEnd {
 public:
  TaskEnd(ExecutorState& state, int rank) : state_(state), rank_(rank) {}
  ~TaskEnd() {
    // In a forked child nobody is left to be told.
    if (state_.observers->InForkedChild()) return;
    if (!returned_) {
      status_ = internal::OutOfMemoryAsStatus([this] {
        return absl::AbortedError(absl::StrCat("rank ", rank_, "'s thread ended inside its task"));
      });
      state_.ranks[rank_].thread_ended.store(true, std::memory_order_release);
    }
    // First keep the failure, then free the ranks that wait: what they return comes second.
    if (!status_.ok()) state_.Failed(rank_, status_, std::move(exception_));
    state_.observers->ForEach(
        [this](internal::TaskObserver& observer) { observer.OnTaskEnd(rank_, status_); });
    // Nothing of this rank is destroyed after the caller has been told.
    status_ = absl::OkStatus();
    exception_ = nullptr;
    state_.handover.Finish();
  }
  void Returned(absl::Status status, std::exception_ptr exception) {
    returned_ = true;
    status_ = std::move(status);
    exception_ = std::move(exception);
  }

 private:
  ExecutorState& state_;
  int rank_;
  absl::Status status_;
  std::exception_ptr exception_;
  bool returned_ = false;
};

std::string TypeName(const std::type_info& type) {
  int failed = 0;
  char* demangled = abi::__cxa_demangle(type.name(), nullptr, nullptr, &failed);
  const std::unique_ptr<char, decltype(&std::free)> freed(demangled, std::free);
  return failed == 0 ? demangled : type.name();
}

absl::Status WhatWasThrown(int rank, const std::exception& thrown) {
  const std::string text =
      absl::StrCat("rank ", rank, " threw ", TypeName(typeid(thrown)), ": ", thrown.what());
  const bool memory = dynamic_cast<const std::bad_alloc*>(&thrown) != nullptr;
  return memory ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
}

void RunTask(ExecutorState& state, int rank) {
  TaskEnd end(state, rank);
  try {
    end.Returned((*state.task)(state.ranks[rank].worker), nullptr);
  } catch (const std::exception& thrown) {
    end.Returned(internal::OutOfMemoryAsStatus([&] { return WhatWasThrown(rank, thrown); }),
                 std::current_exception());
  } catch (...) {
    const std::exception_ptr thrown = std::current_exception();
    // The forced unwinding of a thread that ends itself is no exception, and has to go on.
    if (thrown == nullptr) throw;
    end.Returned(internal::OutOfMemoryAsStatus([rank] {
                   return absl::InternalError(
                       absl::StrCat("rank ", rank, " threw something that is no std::exception"));
                 }),
                 thrown);
  }
}

void RankThread(const std::shared_ptr<ExecutorState>& state, int rank, std::uint32_t last_work) {
  state->ranks[rank].thread_id.store(std::this_thread::get_id(), std::memory_order_relaxed);
  const Device device = state->devices[rank];
  if (!device.is_cpu()) internal::cuda::UseDevice(device);
  internal::Patience<internal::NativePlatform> patience;
  for (;;) {
    last_work = state->handover.AwaitWork(last_work, patience);
    if (state->stopping.load(std::memory_order_relaxed)) return;
    RunTask(*state, rank);
    // Forked inside its task, this is the child's only thread, and there is nobody to go back to.
    if (state->observers->InForkedChild()) return;
  }
}

absl::Status StartThread(const std::shared_ptr<ExecutorState>& state, int rank) {
  ExecutorState::Rank& entry = state->ranks[rank];
  try {
    entry.thread = std::thread(RankThread, state, rank, state->handover.current());
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("executor: no thread for rank ", rank, " of ",
                                                     state->world_size(), ": ", error.what()));
  }
  entry.thread_ended.store(false, std::memory_order_relaxed);
  internal::Placement& placement = state->placement;
  if (!placement.cpus.empty() && !internal::Pin(entry.thread, placement.cpus[rank])) {
    placement = {{}, "not pinned: the system refuses to bind threads"};
  }
  return absl::OkStatus();
}

absl::Status ReplaceEndedThreads(const std::shared_ptr<ExecutorState>& state) {
  for (int rank = 0; rank < state->world_size(); ++rank) {
    ExecutorState::Rank& entry = state->ranks[rank];
    if (!entry.thread_ended.load(std::memory_order_acquire)) continue;
    if (entry.thread.joinable()) entry.thread.join();
    LOCKSTEP_RETURN_IF_ERROR(StartThread(state, rank));
  }
  return absl::OkStatus();
}

// Ends the threads: they are idle, or get here when their task is over.
void Stop(ExecutorState& state) {
  state.stopping.store(true, std::memory_order_relaxed);
  state.handover.Start(0);
}

absl::Status CheckOptions(const Executor::Options& options) {
  if (options.devices.empty()) {
    return absl::InvalidArgumentError(
        "executor: no device given, at least one is needed, such as Device::Cpu()");
  }
  const int world_size = options.world_size;
  if (world_size != 0 &&
      (world_size < static_cast<int>(options.devices.size()) || world_size > 1000)) {
    return absl::InvalidArgumentError(
        absl::StrCat("executor: world_size ", world_size, " over ", options.devices.size(),
                     " devices; it must be from ", options.devices.size(), " to 1000"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(Options options) {
  return internal::OutOfMemoryAsStatus([&] { return Make(options); });
}

absl::StatusOr<std::unique_ptr<Executor>> Executor::Make(const Options& options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckOptions(options));
  const int world_size =
      options.world_size == 0 ? static_cast<int>(options.devices.size()) : options.world_size;
  auto state = std::make_shared<ExecutorState>();
  state->devices = internal::DealDevices(options.devices, world_size);
  for (int rank = 0; rank < world_size; ++rank) {
    const Device device = state->devices[rank];
    LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, Worker::Adopt(rank, world_size, device));
    state->ranks.emplace_back(std::move(worker));
  }
  if (options.pin_threads) state->placement = internal::PlaceRanks(state->devices);
  auto executor = std::unique_ptr<Executor>(new Executor(state));
  for (int rank = 0; rank < world_size; ++rank) LOCKSTEP_RETURN_IF_ERROR(StartThread(state, rank));
  return executor;
}

Executor::Executor(std::shared_ptr<ExecutorState> state) : state_(std::move(state)) {}

Executor::~Executor() {
  if (state_->observers->InForkedChild()) {
    // The handles name threads of the parent: they are forgotten, and nothing is done with them.
    for (ExecutorState::Rank& entry : state_->ranks) std::construct_at(&entry.thread);
    return;
  }
  if (const int rank = state_->ThisRank(); rank >= 0) {
    state_->abandoned_by.store(rank, std::memory_order_relaxed);
    for (ExecutorState::Rank& entry : state_->ranks) entry.thread.detach();
    return;
  }
  internal::Patience<internal::NativePlatform> patience;
  state_->handover.AwaitDone(patience);
  Stop(*state_);
  for (ExecutorState::Rank& entry : state_->ranks) {
    if (entry.thread.joinable()) entry.thread.join();
  }
}

int Executor::world_size() const { return state_->world_size(); }
const std::vector<Device>& Executor::rank_devices() const { return state_->devices; }
std::vector<Stream> Executor::rank_streams() const {
  std::vector<Stream> streams;
  for (const ExecutorState::Rank& entry : state_->ranks) streams.push_back(entry.worker.stream());
  return streams;
}
absl::string_view Executor::pinning() const { return state_->placement.text; }
int Executor::failed_rank() const { return state_->failed_rank; }
std::exception_ptr Executor::exception() const { return state_->exception; }
const std::shared_ptr<internal::TaskObservers>& Executor::observers() const {
  return state_->observers;
}

absl::Status Executor::Run(absl::FunctionRef<absl::Status(Worker&)> task) {
  return internal::OutOfMemoryAsStatus([&] { return RunOnce(task); });
}

absl::Status Executor::RunOnce(absl::FunctionRef<absl::Status(Worker&)> task) {
  const std::shared_ptr<ExecutorState> state = state_;  // a task may destroy *this
  if (state->observers->InForkedChild()) {
    return absl::UnavailableError(
        "executor: Run called in a forked child, but the threads are the parent's; make an "
        "executor in the child");
  }
  if (const int rank = state->ThisRank(); rank >= 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("executor: Run called from inside the task of rank ", rank,
                     " of the same executor; use another executor there"));
  }
  if (state->running.exchange(true, std::memory_order_acquire)) {
    return absl::FailedPreconditionError(
        "executor: Run called while another Run is in flight; one at a time");
  }
  state->failed_rank = -1;
  state->failure = absl::OkStatus();
  state->exception = nullptr;
  const absl::Status replaced =
      internal::OutOfMemoryAsStatus([&] { return ReplaceEndedThreads(state); });
  if (!replaced.ok()) {
    state->running.store(false, std::memory_order_release);
    return replaced;
  }
  state->observers->ForEach([](internal::TaskObserver& observer) { observer.OnRunStart(); });
  state->task = &task;
  state->handover.Start(state->world_size());
  state->handover.AwaitDone(state->caller_patience);
  // The caller's alone: a thread of an abandoned executor may be the last to let go of the state.
  absl::Status failure = std::move(state->failure);
  if (const int rank = state->abandoned_by.load(std::memory_order_relaxed); rank >= 0) {
    state->exception = nullptr;
    Stop(*state);
    return absl::FailedPreconditionError(
        absl::StrCat("executor: destroyed from inside the task of its own rank ", rank,
                     "; destroy it after Run has returned"));
  }
  state->running.store(false, std::memory_order_release);
  return failure;
}

}  // namespace lockstep
