// How the executor tells the groups of ranks what becomes of their tasks, without knowing what a
// group is.
#ifndef LOCKSTEP_RUNTIME_TASK_OBSERVER_H_
#define LOCKSTEP_RUNTIME_TASK_OBSERVER_H_

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "lockstep/runtime/fork_mark.h"
#include "lockstep/runtime/status.h"

namespace lockstep::internal {

/// What must hear of the ranks' tasks: every group of ranks made from an executor. It is told by
/// several threads at once.
class TaskObserver {
 public:
  virtual ~TaskObserver() = default;
  /// On the thread that called Run, before any rank is woken.
  virtual void OnRunStart() = 0;
  /// On the rank's thread, when its task has returned, thrown or unwound. Not OK: the rank failed.
  virtual void OnTaskEnd(int rank, const absl::Status& status) = 0;
  /// What the rank is waiting for or doing here at this moment, such as "all_reduce #3"; empty when
  /// it is elsewhere. From any thread.
  virtual std::string WhereIs(int rank) const = 0;
};

/// The observers of one executor, which the groups share so that a group split off inside a task
/// can join. Thread-safe, but not to be told anything in a forked child, where the lock may be
/// another thread's for ever.
class TaskObservers {
 public:
  /// Forgets the observer when it has died.
  void Add(std::weak_ptr<TaskObserver> observer) {
    const std::unique_lock lock(mutex_);
    std::erase_if(observers_, [](const auto& known) { return known.expired(); });
    observers_.push_back(std::move(observer));
  }

  /// `tell` calls nothing of this object.
  void ForEach(absl::FunctionRef<void(TaskObserver&)> tell) {
    // Shared: at the end of a Run all ranks come here at once.
    const std::shared_lock lock(mutex_);
    for (const auto& known : observers_) {
      if (const auto observer = known.lock()) tell(*observer);
    }
  }

  bool InForkedChild() const { return fork_mark_.InForkedChild(); }

 private:
  const ForkMark fork_mark_;
  std::shared_mutex mutex_;
  std::vector<std::weak_ptr<TaskObserver>> observers_;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_TASK_OBSERVER_H_
