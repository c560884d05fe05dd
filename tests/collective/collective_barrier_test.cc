// What a host may do with a group beside its collectives: which memory, which thread, which
// options; what ranks' ends and counters promise.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

// Memory that faults where it is written.
class ReadOnly {
 public:
  static constexpr std::int64_t kCount = 512;

  ReadOnly() {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (std::int64_t i = 0; i < kCount; ++i) static_cast<std::int64_t*>(memory_)[i] = i;
    mprotect(memory_, kBytes, PROT_READ);
  }
  ~ReadOnly() { munmap(memory_, kBytes); }
  ReadOnly(const ReadOnly&) = delete;
  ReadOnly& operator=(const ReadOnly&) = delete;

  Tensor View(std::int64_t count) const { return Tensor::View(memory_, {count}, DType::kInt64); }

 private:
  static constexpr std::size_t kBytes = kCount * sizeof(std::int64_t);
  void* memory_;
};

// Element i of `out` is `expected(i)`.
absl::Status CheckElements(const std::vector<std::int64_t>& out,
                           const std::function<std::int64_t(std::int64_t)>& expected) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    LOCKSTEP_RETURN_IF_ERROR(
        Expect(out[i] == expected(at), absl::StrCat("element ", i, " is ", out[i])));
  }
  return absl::OkStatus();
}

TEST_CASE("ranks may share one view that nobody can write as their input, in every collective") {
  SURVIVES([]() -> absl::Status {
    const ReadOnly shared;
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(4));
    return ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      constexpr std::int64_t kAll = ReadOnly::kCount;
      constexpr std::int64_t kPart = kAll / 4;
      const std::int64_t rank = worker.rank();
      std::vector<std::int64_t> out(kAll);
      const auto view = [&] {
        return Tensor::View(out.data(), {static_cast<std::int64_t>(out.size())}, DType::kInt64);
      };
      LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(shared.View(kAll), view()));
      LOCKSTEP_RETURN_IF_ERROR(CheckElements(out, [](auto i) { return 4 * i; }));
      LOCKSTEP_RETURN_IF_ERROR(comm.Broadcast(shared.View(kAll), view(), 3));
      LOCKSTEP_RETURN_IF_ERROR(CheckElements(out, [](auto i) { return i; }));
      LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(shared.View(kPart), view()));
      LOCKSTEP_RETURN_IF_ERROR(CheckElements(out, [](auto i) { return i % kPart; }));
      LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(shared.View(kAll), view()));
      LOCKSTEP_RETURN_IF_ERROR(
          CheckElements(out, [&](auto i) { return kPart * rank + i % kPart; }));
      out.resize(kPart);
      LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(shared.View(kAll), view()));
      return CheckElements(out, [&](auto i) { return 4 * (kPart * rank + i); });
    });
  });
}

TEST_CASE("any thread may read a rank's stats at any time, and each number only grows") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2));
    Communicator& watched = ranks.barrier->communicator(1);
    std::atomic<bool> over{false};
    absl::Status seen;
    std::thread reader([&] {
      CommunicatorStats before;
      while (!over) {
        const CommunicatorStats now = watched.stats();
        seen.Update(Expect(now.num_collectives >= before.num_collectives &&
                               now.num_last_arrivals >= before.num_last_arrivals &&
                               now.total_wait >= before.total_wait &&
                               now.max_wait >= before.max_wait &&
                               now.total_time >= before.total_time,
                           "a number went back"));
        before = now;
      }
    });
    const absl::Status run = ranks.Run([](Worker&, Communicator& comm) -> absl::Status {
      for (int i = 0; i < 2000; ++i) LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
      return absl::OkStatus();
    });
    over = true;
    reader.join();
    LOCKSTEP_RETURN_IF_ERROR(run);
    LOCKSTEP_RETURN_IF_ERROR(Expect(watched.stats().num_collectives == 2000, "miscounted"));
    return seen;
  });
}

TEST_CASE("stats count every call that met the others, who came last, and the time inside") {
  auto ranks = Ranks::Create(3);
  REQUIRE_OK(ranks);
  const auto before = std::chrono::steady_clock::now();
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
    LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
    LOCKSTEP_ASSIGN_OR_RETURN(auto pair, comm.Split(worker.rank() / 2, 0));
    if (worker.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(60));
    return comm.Barrier();
  }));
  const absl::Duration took = absl::FromChrono(std::chrono::steady_clock::now() - before);
  // In each of the rounds one came last: two barriers, a sum, and a split with its own barrier.
  std::uint64_t last = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const CommunicatorStats stats = ranks->barrier->communicator(rank).stats();
    CHECK(stats.num_collectives == 4);
    last += stats.num_last_arrivals;
    CHECK(stats.max_wait <= stats.total_wait);
    CHECK(stats.total_wait <= stats.total_time);
    CHECK(stats.total_time <= took);
    if (rank != 1) CHECK(stats.max_wait >= absl::Milliseconds(30));
  }
  CHECK(last == 5);
  // Calls that fail count, unless the rank already knows that the group has failed.
  ranks->RunEach([](Worker& worker, Communicator& comm) {
    return worker.rank() == 0 ? comm.Barrier() : AllReduceOne(comm);
  });
  CHECK(ranks->barrier->communicator(0).stats().num_collectives == 5);
  ranks->RunEach([](Worker&, Communicator& comm) { return comm.Barrier(); });
  CHECK(ranks->barrier->communicator(0).stats().num_collectives == 5);
  REQUIRE_OK(ranks->barrier->Reset());
  ranks->RunEach([](Worker& worker, Communicator& comm) {
    return worker.rank() == 0 ? comm.Split(0, 0).status() : AllReduceOne(comm);
  });
  CHECK(ranks->barrier->communicator(0).stats().num_collectives == 6);
}

TEST_CASE("a group that was split off outlives the one it came from") {
  SURVIVES([]() -> absl::Status {
    const std::vector<Stream> streams(2);
    LOCKSTEP_ASSIGN_OR_RETURN(auto barrier, CollectiveBarrier::Create(streams));
    std::vector<std::unique_ptr<Communicator>> ends(2);
    std::vector<absl::Status> results(2);
    const auto on_both = [&](auto body) {
      std::vector<std::thread> threads;
      for (std::size_t rank = 0; rank < 2; ++rank) {
        threads.emplace_back([&, rank] { results[rank].Update(body(rank)); });
      }
      for (std::thread& thread : threads) thread.join();
    };
    on_both([&](std::size_t rank) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(
          ends[rank], barrier->communicator(static_cast<int>(rank)).Split(5, rank == 0 ? 2 : 1));
      return absl::OkStatus();
    });
    barrier.reset();
    on_both([&](std::size_t rank) { return AllReduceOne(*ends[rank]); });
    results[0].Update(results[1]);
    LOCKSTEP_RETURN_IF_ERROR(results[0]);
    return Expect(ends[0]->rank() == 1 && ends[1]->rank() == 0, "not numbered by key");
  });
}

TEST_CASE("a rank's end is one object in every Run, and works on whatever thread is handed it") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2));
    std::vector<Communicator*> ends(2);
    for (int run = 0; run < 3; ++run) {
      LOCKSTEP_RETURN_IF_ERROR(ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
        Communicator*& end = ends[worker.rank()];
        if (run > 0) LOCKSTEP_RETURN_IF_ERROR(Expect(end == &comm, "another object"));
        end = &comm;
        absl::Status told;
        std::thread([&] { told = AllReduceOne(comm); }).join();
        return told;
      }));
    }
    return Expect(ends[0]->rank() == 0 && ends[1]->rank() == 1 && ends[1]->world_size() == 2,
                  "an end tells of another rank");
  });
}

TEST_CASE("a rank that the group does not have gets an end that refuses everything") {
  auto ranks = Ranks::Create(3);
  REQUIRE_OK(ranks);
  for (const int rank : {-1, 3, 99}) {
    Communicator& comm = ranks->barrier->communicator(rank);
    CHECK(comm.Barrier().code() == absl::StatusCode::kInvalidArgument);
    CHECK(Says(comm.Split(0, 0).status(), "it has 3, from 0 to 2"));
    const Tensor none;
    CHECK(comm.AllReduce(none, none).code() == absl::StatusCode::kInvalidArgument);
    CHECK(comm.Broadcast(none, none, 99).code() == absl::StatusCode::kInvalidArgument);
    CHECK(Says(comm.AllReduceAsync(none, none).status(), "asked for a rank that the group does"));
    CHECK(comm.Synchronize().code() == absl::StatusCode::kInvalidArgument);
    CHECK(comm.stats().num_collectives == 0);
    CHECK((comm.rank() == -1 && comm.world_size() == 3));
  }
}

TEST_CASE("groups that cannot be are refused, and those at the limits are made") {
  const auto made = [](std::size_t ranks, CollectiveBarrier::Options options = {}) {
    return CollectiveBarrier::Create(std::vector<Stream>(ranks), options).status();
  };
  CHECK(Says(made(0), "0 ranks; there can be from 1 to 1000"));
  CHECK(Says(made(1001), "1001 ranks; there can be from 1 to 1000"));
  REQUIRE_OK(made(1000));
  CHECK(Says(made(1, {.timeout = absl::ZeroDuration()}), "timeout 0; it must be positive"));
  CHECK(Says(made(1, {.timeout = absl::Seconds(-2)}), "timeout -2s; it must be positive"));
  REQUIRE_OK(made(1, {.timeout = absl::Nanoseconds(1)}));
  for (const TransportKind kind :
       {TransportKind::kPeer, TransportKind::kStaged, TransportKind::kOrdered}) {
    const absl::Status status = made(2, {.transport = kind});
    CHECK(status.code() == Code::kUnavailable);
    CHECK(Says(status, absl::StrCat(std::string(Name(kind)), " asked for, but all ranks are on")));
  }
  const Stream gpu(Device::Cuda(0), nullptr);
  const Stream mixed[] = {Stream(), gpu, Stream()};
  CHECK(CollectiveBarrier::Create(mixed).status().code() == Code::kUnavailable);
  CHECK(Says(CollectiveBarrier::Create(mixed).status(), "2 of 3 ranks are on the CPU"));
  CHECK(Says(CollectiveBarrier::Create({mixed, 2}).status(), "1 of 2 ranks are on the CPU"));
  CHECK(Says(CollectiveBarrier::Create({&gpu, 1}, {.check_nan = true}).status(),
             "check_nan asked for, but the ranks are on GPUs"));
  for (const TransportKind kind : {TransportKind::kAuto, TransportKind::kCpu}) {
    auto barrier = CollectiveBarrier::Create(std::vector<Stream>(3), {.transport = kind});
    REQUIRE_OK(barrier);
    CHECK((*barrier)->transport() == "cpu");
    CHECK((*barrier)->transport_reason() == "all ranks are on the CPU");
    CHECK((*barrier)->world_size() == 3);
  }
}

TEST_CASE("a time-out without end is one, and its waits end when the others come") {
  for (const absl::Duration timeout : {absl::InfiniteDuration(), absl::Hours(24 * 365 * 200)}) {
    auto ranks = Ranks::Create(2, {.timeout = timeout});
    REQUIRE_OK(ranks);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      if (worker.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
      return AllReduceOne(comm);
    }));
  }
}

TEST_CASE("every transport and every reduction is read back from its name, and nothing else is") {
  for (const TransportKind kind : {TransportKind::kAuto, TransportKind::kCpu, TransportKind::kPeer,
                                   TransportKind::kStaged, TransportKind::kOrdered}) {
    const auto parsed = ParseTransportKind(Name(kind));
    REQUIRE_OK(parsed);
    CHECK(*parsed == kind);
  }
  for (const ReduceOp op : kAllReduceOps) {
    const auto parsed = ParseReduceOp(Name(op));
    REQUIRE_OK(parsed);
    CHECK(*parsed == op);
  }
  for (const char* name : {"", "CPU", "cpu ", "mean"}) {
    CHECK(Says(ParseTransportKind(name).status(),
               absl::StrCat("\"", name, "\": there are auto, cpu, peer, staged and ordered")));
    CHECK(Says(ParseReduceOp(name).status(),
               absl::StrCat("\"", name, "\": there are sum, avg, prod, min and max")));
  }
}

}  // namespace
}  // namespace lockstep
