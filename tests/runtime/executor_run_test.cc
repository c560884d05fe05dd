// What an executor keeps from one Run to the next, and whom it tells.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lockstep/runtime/executor.h"
#include "lockstep/runtime/task_observer.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::Expect;
using testing::ExpectStatus;
using testing::RunInChild;
using testing::Says;

std::unique_ptr<Executor> MakeExecutor(int world_size) {
  auto executor = Executor::Create({.world_size = world_size});
  REQUIRE_OK(executor);
  return *std::move(executor);
}

absl::Status Fine(Worker&) { return absl::OkStatus(); }

TEST_CASE("a rank has the same worker in every Run, and what it made there keeps its contents") {
  REQUIRE_OK(RunInChild(absl::Seconds(60), []() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 3}));
    std::vector<std::set<Worker*>> workers(3);
    std::vector<Tensor> kept(3);
    const auto note = [&](Worker& worker) { workers[worker.rank()].insert(&worker); };
    LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker& worker) -> absl::Status {
      note(worker);
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, worker.Zeros({1}, DType::kInt32));
      *x.data<std::int32_t>() = 10 + worker.rank();
      kept[worker.rank()] = x;
      return absl::OkStatus();
    }));
    // After a failure, and on a thread that was replaced, too.
    (void)executor->Run([&](Worker& worker) -> absl::Status {
      note(worker);
      if (worker.rank() == 1) pthread_exit(nullptr);
      return absl::InternalError("failed");
    });
    LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker& worker) -> absl::Status {
      note(worker);
      const Tensor& x = kept[worker.rank()];
      return Expect(*x.data<std::int32_t>() == 10 + worker.rank(), "the tensor changed");
    }));
    for (const auto& of_rank : workers)
      LOCKSTEP_RETURN_IF_ERROR(Expect(of_rank.size() == 1, "a rank had another worker"));
    return Expect(workers[0] != workers[1], "two ranks had one worker");
  }));
}

TEST_CASE("failed_rank and exception tell of the last Run alone") {
  auto executor = MakeExecutor(2);
  CHECK(executor->failed_rank() == -1);
  CHECK(executor->exception() == nullptr);
  const absl::Status status = executor->Run([](Worker& worker) -> absl::Status {
    if (worker.rank() == 1) throw std::bad_alloc();
    return absl::OkStatus();
  });
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(Says(status, "rank 1 threw std::bad_alloc"));
  CHECK(executor->failed_rank() == 1);
  CHECK(executor->exception() != nullptr);
  REQUIRE_OK(executor->Run(Fine));
  CHECK(executor->failed_rank() == -1);
  CHECK(executor->exception() == nullptr);
  const absl::Status returned = executor->Run([](Worker& worker) {
    return worker.rank() == 0 ? absl::NotFoundError("no file") : absl::OkStatus();
  });
  CHECK(returned == absl::NotFoundError("no file"));
  CHECK(executor->failed_rank() == 0);
  CHECK(executor->exception() == nullptr);
}

TEST_CASE("a Run that is refused while another is in flight changes nothing about that one") {
  auto executor = MakeExecutor(1);
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  absl::Status first;
  std::thread runner([&] {
    first = executor->Run([&](Worker&) -> absl::Status {
      inside = true;
      while (!leave) std::this_thread::yield();
      return absl::DataLossError("first");
    });
  });
  while (!inside) std::this_thread::yield();
  bool ran = false;
  const absl::Status second = executor->Run([&](Worker&) {
    ran = true;
    return absl::OkStatus();
  });
  leave = true;
  runner.join();
  CHECK(Says(second, "while another Run is in flight"));
  CHECK_FALSE(ran);
  CHECK(first == absl::DataLossError("first"));
  CHECK(executor->failed_rank() == 0);
}

// Keeps what it is told.
class Witness final : public internal::TaskObserver {
 public:
  void OnRunStart() override { Note("start"); }
  void OnTaskEnd(int rank, const absl::Status& status) override {
    Note(absl::StrCat(rank, " ", status.message()));
  }
  std::string WhereIs(int) const override { return ""; }
  std::multiset<std::string> told() const { return told_; }
  std::string first() const { return first_; }

 private:
  void Note(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (told_.empty()) first_ = what;
    told_.insert(what);
  }
  std::mutex mutex_;
  std::multiset<std::string> told_;
  std::string first_;
};

TEST_CASE("observers hear of each Run before its tasks, and of each task's end with its status") {
  auto executor = MakeExecutor(3);
  const auto witness = std::make_shared<Witness>();
  const auto other = std::make_shared<Witness>();
  executor->observers()->Add(witness);
  {
    const auto gone = std::make_shared<Witness>();
    executor->observers()->Add(gone);
  }
  executor->observers()->Add(other);
  (void)executor->Run([](Worker& worker) {
    return worker.rank() == 1 ? absl::InternalError("broke") : absl::OkStatus();
  });
  using Told = std::multiset<std::string>;
  CHECK(witness->told() == Told{"start", "0 ", "1 broke", "2 "});
  CHECK(other->told() == witness->told());
  CHECK(witness->first() == "start");
}

TEST_CASE("in a forked child a Run is refused and the destructor returns") {
  REQUIRE_OK(RunInChild(absl::Seconds(20), []() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 2}));
    const pid_t child = fork();
    if (child == 0) {
      const absl::Status status = executor->Run(Fine);
      executor.reset();
      _exit(absl::IsUnavailable(status) && Says(status, "forked child") ? 7 : 1);
    }
    int how = 0;
    waitpid(child, &how, 0);
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(WIFEXITED(how) && WEXITSTATUS(how) == 7, "the child was not refused"));
    return executor->Run(Fine);
  }));
}

TEST_CASE("ranks on the CPU have the CPU's stream, and as many devices as there are ranks") {
  auto executor = MakeExecutor(3);
  CHECK(executor->rank_devices() == std::vector<Device>(3, Device::Cpu()));
  REQUIRE(executor->rank_streams().size() == 3);
  for (const Stream& stream : executor->rank_streams()) CHECK(stream.device().is_cpu());
}

}  // namespace
}  // namespace lockstep
