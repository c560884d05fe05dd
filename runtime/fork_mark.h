// Whether this process is a forked child of the one that made an object.
#ifndef LOCKSTEP_RUNTIME_FORK_MARK_H_
#define LOCKSTEP_RUNTIME_FORK_MARK_H_

#include <sys/types.h>

#include <atomic>

namespace lockstep::internal {

/// Belongs to an object whose threads a fork leaves behind: in the child nobody answers, and
/// whoever waits there waits for ever.
///
/// A page that the kernel empties in a child (MADV_WIPEONFORK, Linux 4.14), so that a look costs
/// one load and nothing is registered in the host's process. Where the kernel cannot, a look asks
/// for the process id. Thread-safe.
class ForkMark {
 public:
  ForkMark();
  ~ForkMark();
  ForkMark(const ForkMark&) = delete;
  ForkMark& operator=(const ForkMark&) = delete;

  bool InForkedChild() const {
    return page_ != nullptr ? !page_->load(std::memory_order_relaxed) : IsOtherProcess();
  }

 private:
  bool IsOtherProcess() const;

  const pid_t process_;
  std::atomic<bool>* page_ = nullptr;
};

}  // namespace lockstep::internal

#endif  // LOCKSTEP_RUNTIME_FORK_MARK_H_
