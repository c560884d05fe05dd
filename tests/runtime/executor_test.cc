#include "lockstep/runtime/executor.h"

#include <pthread.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"

namespace lockstep {
namespace {

using testing::Expect;
using testing::ExpectStatus;
using testing::RunInChild;
using testing::Says;

std::unique_ptr<Executor> MakeExecutor(int world_size, bool pin_threads = false) {
  auto executor = Executor::Create({.world_size = world_size, .pin_threads = pin_threads});
  REQUIRE_OK(executor);
  return *std::move(executor);
}

absl::Status Fine(Worker&) { return absl::OkStatus(); }

TEST_CASE("an executor runs its task once per rank, each time on that rank's own thread") {
  for (const int world_size : {1, 2, 3, 8}) {
    auto executor = MakeExecutor(world_size);
    REQUIRE(executor->world_size() == world_size);
    std::vector<std::set<std::thread::id>> threads(static_cast<std::size_t>(world_size));
    std::vector<int> calls(static_cast<std::size_t>(world_size));  // plain: Run must order it
    for (int run = 0; run < 100; ++run) {
      REQUIRE_OK(executor->Run([&](Worker& worker) {
        threads[worker.rank()].insert(std::this_thread::get_id());
        calls[worker.rank()] += worker.world_size();
        return absl::OkStatus();
      }));
    }
    std::set<std::thread::id> all;
    for (int rank = 0; rank < world_size; ++rank) {
      CHECK(threads[rank].size() == 1);
      CHECK(calls[rank] == 100 * world_size);
      all.insert(threads[rank].begin(), threads[rank].end());
    }
    CHECK(all.size() == static_cast<std::size_t>(world_size));
    CHECK(all.count(std::this_thread::get_id()) == 0);
  }
}

TEST_CASE("a rank's status comes back unchanged, with its rank") {
  auto executor = MakeExecutor(3);
  const absl::Status status = executor->Run([](Worker& worker) {
    return worker.rank() == 1 ? absl::NotFoundError("no such weight") : absl::OkStatus();
  });
  CHECK(status == absl::NotFoundError("no such weight"));
  CHECK(executor->failed_rank() == 1);
  CHECK(executor->exception() == nullptr);
  REQUIRE_OK(executor->Run(Fine));
  CHECK(executor->failed_rank() == -1);
}

TEST_CASE("of several failing ranks the first one's status is kept") {
  auto executor = MakeExecutor(2);
  std::atomic<bool> first_failed{false};
  const absl::Status status = executor->Run([&](Worker& worker) -> absl::Status {
    if (worker.rank() == 1) {
      // Its status is kept when the task returns, so the other waits for the thread to be idle: for
      // a while.
      first_failed = true;
      return absl::DataLossError("first");
    }
    while (!first_failed) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return absl::InternalError("second");
  });
  CHECK(status == absl::DataLossError("first"));
  CHECK(executor->failed_rank() == 1);
}

TEST_CASE("an exception becomes a status with its type and text, and can be thrown on") {
  auto executor = MakeExecutor(2);
  const absl::Status status = executor->Run([](Worker& worker) -> absl::Status {
    if (worker.rank() == 1) throw std::out_of_range("index 7 of 3");
    return absl::OkStatus();
  });
  CHECK(status.code() == absl::StatusCode::kInternal);
  CHECK(Says(status, "rank 1 threw std::out_of_range: index 7 of 3"));
  REQUIRE(executor->exception() != nullptr);
  CHECK_THROWS_AS(std::rethrow_exception(executor->exception()), std::out_of_range);

  const absl::Status odd = executor->Run([](Worker&) -> absl::Status { throw 42; });
  CHECK(Says(odd, "no std::exception"));
  REQUIRE_OK(executor->Run(Fine));
}

TEST_CASE(
    "F41: Run inside a task of the same executor is refused at once, and works on another one",
    "[fault]") {
  REQUIRE_OK(RunInChild(absl::Seconds(20), []() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 2}));
    LOCKSTEP_ASSIGN_OR_RETURN(auto other, Executor::Create({.world_size = 2}));
    std::atomic<int> inner{0};
    return executor->Run([&](Worker& worker) -> absl::Status {
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(
          executor->Run(Fine), absl::StatusCode::kFailedPrecondition, "from inside the task"));
      if (worker.rank() == 1) return absl::OkStatus();
      LOCKSTEP_RETURN_IF_ERROR(other->Run([&](Worker&) {
        ++inner;
        return absl::OkStatus();
      }));
      return Expect(inner == 2, "the other executor did not run its ranks");
    });
  }));
}

TEST_CASE("a second Run while one is in flight is refused") {
  auto executor = MakeExecutor(1);
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread first([&] {
    (void)executor->Run([&](Worker&) {
      inside = true;
      while (!leave) std::this_thread::yield();
      return absl::OkStatus();
    });
  });
  while (!inside) std::this_thread::yield();
  const absl::Status second = executor->Run(Fine);
  leave = true;
  first.join();
  CHECK(second.code() == absl::StatusCode::kFailedPrecondition);
  REQUIRE_OK(executor->Run(Fine));
}

TEST_CASE("a thread that ends itself inside a task fails the Run, and is replaced") {
  REQUIRE_OK(RunInChild(absl::Seconds(20), []() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 3}));
    for (int cycle = 0; cycle < 5; ++cycle) {
      const absl::Status status = executor->Run([](Worker& worker) {
        if (worker.rank() == 1) pthread_exit(nullptr);
        return absl::OkStatus();
      });
      LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(status, absl::StatusCode::kAborted,
                                            "rank 1's thread ended inside its task"));
      std::atomic<int> ran{0};
      LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker&) {
        ++ran;
        return absl::OkStatus();
      }));
      LOCKSTEP_RETURN_IF_ERROR(Expect(ran == 3, "not all ranks ran after the replacement"));
    }
    return absl::OkStatus();
  }));
}

TEST_CASE(
    "an executor destroyed from inside its own task does not wait for itself, and the Run says "
    "so") {
  REQUIRE_OK(RunInChild(absl::Seconds(20), []() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 2}));
    Executor* const raw = executor.get();
    const absl::Status status = raw->Run([&](Worker& worker) {
      if (worker.rank() == 1) executor.reset();
      return absl::OkStatus();
    });
    return ExpectStatus(status, absl::StatusCode::kFailedPrecondition,
                        "destroyed from inside the task of its own rank 1");
  }));
}

TEST_CASE("an executor that never ran, or whose last Run failed, is destroyed without waiting") {
  REQUIRE_OK(RunInChild(absl::Seconds(20), []() -> absl::Status {
    for (int i = 0; i < 50; ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(auto idle, Executor::Create({.world_size = 4}));
      LOCKSTEP_ASSIGN_OR_RETURN(auto failing, Executor::Create({.world_size = 4}));
      (void)failing->Run([](Worker&) { return absl::InternalError("no"); });
    }
    return absl::OkStatus();
  }));
}

TEST_CASE("threads that have gone to sleep are woken by the next Run") {
  auto executor = MakeExecutor(2);
  for (int run = 0; run < 20; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    REQUIRE_OK(executor->Run(Fine));
  }
}

TEST_CASE("pinned threads run all the same") {
  REQUIRE_OK(MakeExecutor(2, /*pin_threads=*/true)->Run(Fine));
}

TEST_CASE("ranks are dealt over the devices in order") {
  auto executor = Executor::Create({.devices = {Device::Cpu(), Device::Cpu()}});
  REQUIRE_OK(executor);
  CHECK((*executor)->world_size() == 2);
  CHECK((*executor)->rank_devices() == std::vector<Device>(2, Device::Cpu()));
}

TEST_CASE("options that cannot be are refused with what would be right") {
  CHECK(Says(Executor::Create({.devices = {}}).status(), "no device"));
  CHECK(Says(Executor::Create({.world_size = -1}).status(), "from 1 to 1000"));
  CHECK(Says(Executor::Create({.world_size = 1001}).status(), "world_size 1001"));
  CHECK(
      Says(Executor::Create({.devices = {Device::Cpu(), Device::Cpu()}, .world_size = 1}).status(),
           "over 2 devices"));
  CHECK(Executor::Create({.devices = {Device::Cuda(99)}}).status().code() ==
        absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lockstep
