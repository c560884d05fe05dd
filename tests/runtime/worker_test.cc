#include "lockstep/runtime/worker.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "lockstep/runtime/fork_mark.h"
#include "lockstep/runtime/graph.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::Expect;
using testing::MakeWorker;
using testing::RunInChild;
using testing::Says;
using testing::TestDevices;
using testing::Values;

TEST_CASE("a worker knows its rank, world, device and stream") {
  const auto worker = Worker::Adopt(2, 3, Device::Cpu());
  REQUIRE_OK(worker);
  CHECK(worker->rank() == 2);
  CHECK(worker->world_size() == 3);
  CHECK(worker->device() == Device::Cpu());
  CHECK(worker->stream().native() == nullptr);
  CHECK(worker->state() == nullptr);
  CHECK_FALSE(worker->allow_tf32());
}

TEST_CASE("a rank outside its world, or a stream of another device, is refused") {
  CHECK(Says(Worker::Adopt(3, 3, Device::Cpu()).status(), "rank 3 of 3"));
  CHECK(Says(Worker::Adopt(-1, 3, Device::Cpu()).status(), "rank -1 of 3"));
  CHECK(Says(Worker::Adopt(0, 0, Device::Cpu()).status(), "rank 0 of 0"));
  CHECK(Says(Worker::Adopt(0, 1, Device::Cpu(), Stream(Device::Cuda(0), nullptr)).status(),
             "rank 0 is on cpu, but its stream is of cuda:0"));
}

TEST_CASE("a worker's zeros are zeros also where a block was used before", "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    for (int turn = 0; turn < 2; ++turn) {
      const Tensor x = *worker.Zeros({100}, DType::kFloat32);
      CHECK(Values(worker, x) == std::vector<double>(100, 0));
      REQUIRE_OK(Fill(worker, 7, x));
    }
  }
}

TEST_CASE("a copy of a worker is the same rank, with the same memory") {
  Worker worker = MakeWorker();
  const Worker copy = worker;
  CHECK(&copy.memory() == &worker.memory());
}

TEST_CASE("threads may read one array of the host through their own views") {
  std::vector<float> shared(1000);
  for (std::size_t i = 0; i < shared.size(); ++i) shared[i] = static_cast<float>(i);
  const Tensor view = Tensor::View(shared.data(), {1000}, DType::kFloat32);
  std::vector<double> sums(4);
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < sums.size(); ++rank) {
    threads.emplace_back([&sums, &view, rank] {
      Worker worker = MakeWorker();
      for (int turn = 0; turn < 100; ++turn) {
        double sum = 0;
        const auto part = *view.Slice(0, 250 * static_cast<std::int64_t>(rank), 250);
        for (const double value : Values(worker, part)) sum += value;
        sums[rank] = sum;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(sums == std::vector<double>{31125, 93625, 156125, 218625});
}

TEST_CASE("a graph is refused on the CPU, where there is nothing to record") {
  Worker worker = MakeWorker();
  bool called = false;
  const auto graph = Graph::Capture(worker, [&] {
    called = true;
    return absl::OkStatus();
  });
  CHECK(graph.status().code() == absl::StatusCode::kUnavailable);
  CHECK(Says(graph.status(), "on the CPU"));
  CHECK_FALSE(called);
}

TEST_CASE("a mark tells a forked child from the process that made it") {
  const internal::ForkMark mark;
  CHECK_FALSE(mark.InForkedChild());
  REQUIRE_OK(RunInChild(absl::Seconds(20), [&]() -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(Expect(mark.InForkedChild(), "the child was not told"));
    const internal::ForkMark own;
    return Expect(!own.InForkedChild(), "the child's own mark says that it is another's");
  }));
  CHECK_FALSE(mark.InForkedChild());
}

TEST_CASE("a check that fails ends the process, and one that holds does nothing") {
  LOCKSTEP_CHECK(1 + 1 == 2);
  const absl::Status status = RunInChild(absl::Seconds(20), []() -> absl::Status {
    (void)std::freopen("/dev/null", "w", stderr);
    LOCKSTEP_CHECK(1 + 1 == 3);
    return absl::OkStatus();
  });
  // A sanitizer turns the signal into an exit of its own.
  INFO(status.ToString());
  CHECK((Says(status, strsignal(SIGABRT)) || Says(status, "exited with")));
}

}  // namespace
}  // namespace lockstep
