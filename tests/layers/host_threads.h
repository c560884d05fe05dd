// Ranks on the host's own threads: no executor sees the end of a rank's task.
#ifndef LOCKSTEP_TESTS_LAYERS_HOST_THREADS_H_
#define LOCKSTEP_TESTS_LAYERS_HOST_THREADS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

class HostThreads {
 public:
  using Body = std::function<absl::Status(Worker&, Communicator&)>;

  static absl::StatusOr<HostThreads> Create(int world_size) {
    HostThreads threads;
    std::vector<Stream> streams;
    for (int rank = 0; rank < world_size; ++rank) {
      LOCKSTEP_ASSIGN_OR_RETURN(Worker worker, Worker::Adopt(rank, world_size, Device::Cpu()));
      streams.push_back(worker.stream());
      threads.workers_.push_back(std::move(worker));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(threads.barrier_, CollectiveBarrier::Create(streams));
    return threads;
  }

  /// What each rank's body returned. kDeadlineExceeded everywhere if it took longer than any test
  /// should, and far less than the group's own time-out.
  std::vector<absl::Status> Run(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<absl::Status> statuses(workers_.size());
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < workers_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        Worker& worker = workers_[rank];
        statuses[rank] = body(worker, barrier_->communicator(worker.rank()));
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(30)) {
      statuses.assign(workers_.size(), absl::DeadlineExceededError("the ranks waited"));
    }
    return statuses;
  }

  CollectiveBarrier& barrier() { return *barrier_; }

 private:
  std::vector<Worker> workers_;
  std::unique_ptr<CollectiveBarrier> barrier_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_LAYERS_HOST_THREADS_H_
