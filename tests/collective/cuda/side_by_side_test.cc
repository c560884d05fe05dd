// Several groups at work on the same GPUs, each driven by threads of its own.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "lockstep/runtime/cuda/guards.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/graph.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/gpus.h"
#include "lockstep/tests/ranks.h"

namespace lockstep {
namespace {

using testing::Gpus;
using testing::Ranks;
using testing::Says;
using testing::TextOf;

constexpr std::int64_t kKiB = 1 << 10;
constexpr std::int64_t kMiB = 1 << 20;
constexpr absl::Duration kTimeout = absl::Seconds(10);

// A tensor of float32 on the rank's GPU, of which every element must be one value.
class Even {
 public:
  static absl::StatusOr<Even> Create(Worker& worker, std::int64_t bytes) {
    Even even(worker);
    LOCKSTEP_ASSIGN_OR_RETURN(even.tensor_, worker.Empty({bytes / 4}, DType::kFloat32));
    even.host_.resize(static_cast<std::size_t>(bytes / 4));
    return even;
  }
  const Tensor& tensor() const { return tensor_; }
  absl::Status Set(double value) { return Fill(*worker_, value, tensor_); }
  // What the group has to say comes first.
  absl::Status Expect(double value, Communicator& comm) {
    const Tensor view = Tensor::View(host_.data(), tensor_.shape(), DType::kFloat32);
    LOCKSTEP_RETURN_IF_ERROR(Copy(*worker_, tensor_, view));
    LOCKSTEP_RETURN_IF_ERROR(comm.Synchronize());
    const auto wrong = std::find_if(host_.begin(), host_.end(), [&](float found) {
      return found != static_cast<float>(value);
    });
    if (wrong == host_.end()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("element ", wrong - host_.begin(), " of ", host_.size(),
                                            " is ", *wrong, ", expected ", value));
  }

 private:
  explicit Even(Worker& worker) : worker_(&worker) {}
  Worker* worker_;
  Tensor tensor_;
  std::vector<float> host_;
};

// What the ranks give makes up `value` + 1 + ... + world_size.
double SumOf(const Communicator& comm, double value) {
  const double n = comm.world_size();
  return n * value + n * (n + 1) / 2;
}

// Sums of every size, begun with another one than the neighbours begin with.
std::vector<std::int64_t> Sizes(int group) {
  std::vector<std::int64_t> sizes = {kKiB,     64 * kKiB, 300 * kKiB, kMiB,
                                     8 * kMiB, 20 * kMiB, 64 * kMiB};
  std::rotate(sizes.begin(), sizes.begin() + group % static_cast<int>(sizes.size()), sizes.end());
  return sizes;
}

absl::Status Eager(Worker& worker, Communicator& comm, int group) {
  for (const std::int64_t bytes : Sizes(group)) {
    LOCKSTEP_ASSIGN_OR_RETURN(Even x, Even::Create(worker, bytes));
    for (int round = 1; round <= 6; ++round) {
      LOCKSTEP_RETURN_IF_ERROR(x.Set(round * 10 + group + comm.rank() + 1));
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor()));
      // More behind it, of what is equal by then: none may come too early.
      for (int i = 0; i < 3; ++i) {
        LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(x.tensor(), x.tensor(), ReduceOp::kMax));
      }
      LOCKSTEP_RETURN_IF_ERROR(x.Expect(SumOf(comm, round * 10 + group), comm));
    }
  }
  return absl::OkStatus();
}

absl::Status Replayed(Worker& worker, Communicator& comm, int group) {
  for (const std::int64_t bytes : Sizes(group)) {
    LOCKSTEP_ASSIGN_OR_RETURN(Even x, Even::Create(worker, bytes));
    LOCKSTEP_ASSIGN_OR_RETURN(Even y, Even::Create(worker, bytes));
    LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&]() -> absl::Status {
                                LOCKSTEP_ASSIGN_OR_RETURN(
                                    PendingCollective sum,
                                    comm.AllReduceAsync(x.tensor(), y.tensor()));
                                LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
                                return comm.AllReduce(y.tensor(), y.tensor(), ReduceOp::kMin);
                              }));
    for (int round = 1; round <= 6; ++round) {
      LOCKSTEP_RETURN_IF_ERROR(x.Set(round * 10 + group + comm.rank() + 1));
      for (int i = 0; i < 5; ++i) LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
      LOCKSTEP_RETURN_IF_ERROR(y.Expect(SumOf(comm, round * 10 + group), comm));
    }
  }
  return absl::OkStatus();
}

absl::Status PutAside(Worker& worker, Communicator& comm, int group) {
  for (const std::int64_t bytes : Sizes(group)) {
    LOCKSTEP_ASSIGN_OR_RETURN(Even x, Even::Create(worker, bytes));
    LOCKSTEP_ASSIGN_OR_RETURN(Even y, Even::Create(worker, bytes));
    for (int round = 1; round <= 4; ++round) {
      LOCKSTEP_RETURN_IF_ERROR(x.Set(round * 10 + group + comm.rank() + 1));
      LOCKSTEP_ASSIGN_OR_RETURN(PendingCollective sum, comm.AllReduceAsync(x.tensor(), x.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(y.Set(round + comm.rank() + 1));
      LOCKSTEP_RETURN_IF_ERROR(sum.Wait());
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(y.tensor(), y.tensor()));
      LOCKSTEP_RETURN_IF_ERROR(x.Expect(SumOf(comm, round * 10 + group), comm));
      LOCKSTEP_RETURN_IF_ERROR(y.Expect(SumOf(comm, round), comm));
    }
  }
  return absl::OkStatus();
}

absl::Status InTurn(Worker& worker, Communicator& comm, int group) {
  LOCKSTEP_RETURN_IF_ERROR(Eager(worker, comm, group));
  LOCKSTEP_RETURN_IF_ERROR(Replayed(worker, comm, group + 1));
  return PutAside(worker, comm, group + 2);
}

// The same in a group that was split off, with the one it came from in between.
absl::Status Split(Worker& worker, Communicator& comm, int group) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto child, comm.Split(/*color=*/0, /*key=*/-comm.rank()));
  LOCKSTEP_RETURN_IF_ERROR(Eager(worker, *child, group));
  LOCKSTEP_RETURN_IF_ERROR(PutAside(worker, comm, group));
  return PutAside(worker, *child, group);
}

// Each group's work on host threads of its own, beside `bystander` until all are done.
template <typename Bystander>
std::vector<absl::Status> SideBySide(
    std::vector<Ranks>& groups,
    const std::function<absl::Status(Worker&, Communicator&, int)>& work, Bystander bystander) {
  std::vector<absl::Status> statuses(groups.size());
  std::atomic<bool> done{false};
  std::thread beside([&] {
    while (!done.load(std::memory_order_acquire)) bystander();
  });
  std::vector<std::thread> hosts;
  for (std::size_t group = 0; group < groups.size(); ++group) {
    hosts.emplace_back([&, group] {
      statuses[group] = groups[group].Run([&](Worker& worker, Communicator& comm) {
        return work(worker, comm, static_cast<int>(group));
      });
    });
  }
  for (std::thread& host : hosts) host.join();
  done.store(true, std::memory_order_release);
  beside.join();
  return statuses;
}

std::vector<Ranks> MakeGroups(int count, int world_size, const std::vector<Device>& devices,
                              CollectiveBarrier::Options options) {
  std::vector<Ranks> groups;
  for (int group = 0; group < count; ++group) {
    auto ranks = Ranks::Create(world_size, options, devices);
    REQUIRE_OK(ranks);
    groups.push_back(*std::move(ranks));
  }
  return groups;
}

void CheckAll(const std::vector<absl::Status>& statuses) {
  for (std::size_t group = 0; group < statuses.size(); ++group) {
    INFO("group " << group << " of " << statuses.size());
    CHECK(TextOf(statuses[group]) == "OK");
  }
}

void Idle() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

// A program of the host's on the same GPUs.
class Neighbour {
 public:
  explicit Neighbour(const std::vector<Device>& devices) {
    for (const Device device : devices) {
      auto worker = Worker::Adopt(0, 1, device);
      REQUIRE_OK(worker);
      workers_.push_back(*std::move(worker));
    }
  }
  // Takes memory and gives it back.
  void Allocate() {
    rounds_ += 1;
    for (const Worker& worker : workers_) {
      const internal::cuda::DeviceGuard guard(worker.device());
      void* memory = nullptr;
      if (cudaMalloc(&memory, static_cast<std::size_t>((1 + rounds_ % 16) * kMiB)) != cudaSuccess ||
          cudaFree(memory) != cudaSuccess) {
        status_.Update(absl::InternalError("the neighbour got no memory"));
      }
    }
  }
  // Fills the GPUs with products.
  void Multiply() {
    for (Worker& worker : workers_) status_.Update(Multiply(worker));
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status Multiply(Worker& worker) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor a, worker.Zeros({4096, 4096}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor product, worker.Empty({4096, 4096}, DType::kFloat32));
    for (int i = 0; i < 3; ++i) LOCKSTEP_RETURN_IF_ERROR(MatMul(worker, a, a, product));
    return worker.stream().Synchronize();
  }

  std::vector<Worker> workers_;
  absl::Status status_;
  int rounds_ = 0;
};

// Calls body(groups) with two to eight groups over two GPUs.
template <typename Body>
void OnTwoGpus(Body body) {
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() < 2) return;
  for (const int count : {2, 4, 8}) {
    auto groups = MakeGroups(count, 2, {gpus[0], gpus[1]}, {.timeout = kTimeout});
    for (const Ranks& group : groups) CHECK(group.barrier->transport() == "peer");
    INFO(count << " groups");
    body(groups);
  }
}

TEST_CASE("two to eight groups sum at once: eager", "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) { CheckAll(SideBySide(groups, Eager, Idle)); });
}

TEST_CASE("two to eight groups sum at once: replayed", "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) { CheckAll(SideBySide(groups, Replayed, Idle)); });
}

TEST_CASE("two to eight groups sum at once: put aside", "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) { CheckAll(SideBySide(groups, PutAside, Idle)); });
}

TEST_CASE("two to eight groups sum at once: split", "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) { CheckAll(SideBySide(groups, Split, Idle)); });
}

TEST_CASE(
    "two to eight groups sum at once, whatever each is at, beside products that fill the GPUs",
    "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) {
    Neighbour neighbour(groups[0].executor->rank_devices());
    CheckAll(SideBySide(groups, InTurn, [&] { neighbour.Multiply(); }));
    CHECK(TextOf(neighbour.status()) == "OK");
  });
}

TEST_CASE("two to eight groups sum at once beside a neighbour that takes memory and gives it back",
          "[gpu][multi_gpu]") {
  OnTwoGpus([](std::vector<Ranks>& groups) {
    Neighbour neighbour(groups[0].executor->rank_devices());
    CheckAll(SideBySide(groups, InTurn, [&] { neighbour.Allocate(); }));
    CHECK(TextOf(neighbour.status()) == "OK");
  });
}

TEST_CASE("a graph captured while its group was alone replays beside groups that came later",
          "[gpu][multi_gpu]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.size() < 2) return;
  const std::vector<Device> devices = {gpus[0], gpus[1]};
  auto groups = MakeGroups(1, 2, devices, {.timeout = kTimeout});
  struct Captured {
    std::optional<Even> x;
    std::optional<Even> y;
    std::optional<Graph> graph;
  };
  std::vector<Captured> captured(2);  // gone before the streams are
  REQUIRE_OK(groups[0].Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    Captured& mine = captured[worker.rank()];
    LOCKSTEP_ASSIGN_OR_RETURN(mine.x, Even::Create(worker, 64 * kMiB));
    LOCKSTEP_ASSIGN_OR_RETURN(mine.y, Even::Create(worker, 64 * kMiB));
    LOCKSTEP_ASSIGN_OR_RETURN(mine.graph, Graph::Capture(worker, [&] {
                                return comm.AllReduce(mine.x->tensor(), mine.y->tensor());
                              }));
    return absl::OkStatus();
  }));
  for (auto& later : MakeGroups(4, 2, devices, {.timeout = kTimeout})) {
    groups.push_back(std::move(later));
  }
  CheckAll(SideBySide(
      groups,
      [&](Worker& worker, Communicator& comm, int group) -> absl::Status {
        if (group > 0) return Eager(worker, comm, group);
        Captured& mine = captured[worker.rank()];
        for (int round = 1; round <= 20; ++round) {
          LOCKSTEP_RETURN_IF_ERROR(mine.x->Set(round * 10 + comm.rank() + 1));
          for (int i = 0; i < 5; ++i) LOCKSTEP_RETURN_IF_ERROR(mine.graph->Launch());
          LOCKSTEP_RETURN_IF_ERROR(mine.y->Expect(SumOf(comm, round * 10), comm));
        }
        return absl::OkStatus();
      },
      Idle));
}

TEST_CASE("groups whose ranks share a GPU by peer run at once too", "[gpu]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.empty()) return;
  for (const int count : {2, 4}) {
    auto groups =
        MakeGroups(count, 2, {gpus[0]}, {.timeout = kTimeout, .transport = TransportKind::kPeer});
    INFO(count << " groups");
    CheckAll(SideBySide(groups, InTurn, Idle));
  }
}

TEST_CASE("more groups than a GPU has room for are told so, or are ordered by events", "[gpu]") {
  const std::vector<Device> gpus = Gpus();
  if (gpus.empty()) return;
  const CollectiveBarrier::Options by_peer = {.timeout = kTimeout,
                                              .transport = TransportKind::kPeer};
  auto groups = MakeGroups(4, 2, {gpus[0]}, by_peer);
  const auto refused = Ranks::Create(2, by_peer, {gpus[0]}).status();
  CHECK(refused.code() == absl::StatusCode::kUnavailable);
  // By the streams that CUDA starts at once, or with CUDA_DEVICE_MAX_CONNECTIONS=32 by the room.
  CHECK(Says(refused, "on 8 streams"));
  // Once one is gone, there is room for another.
  groups.pop_back();
  CHECK(Ranks::Create(2, by_peer, {gpus[0]}).ok());
  if (gpus.size() < 2) return;
  groups.clear();
  groups = MakeGroups(9, 2, {gpus[0], gpus[1]}, {.timeout = kTimeout});
  CHECK(groups[7].barrier->transport() == "peer");
  CHECK(groups[8].barrier->transport() == "ordered");
  CHECK(std::string(groups[8].barrier->transport_reason()).find("on 8 streams") !=
        std::string::npos);
  CheckAll(SideBySide(groups, Eager, Idle));
}

}  // namespace
}  // namespace lockstep
