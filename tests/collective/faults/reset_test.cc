// Ranks that are held up inside a collective, that wait for long, and groups split off groups: what
// the others may do meanwhile.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "lockstep/collective/local_communicator.h"
#include "lockstep/tests/collective/faults/faults.h"

namespace lockstep {
namespace {

using namespace testing;  // NOLINT: a test's own vocabulary

// A thread that receives SIGUSR1 stands still while this is set.
std::atomic<bool> hold{false};
std::atomic<bool> held{false};

void StandStill(int) {
  held = true;
  while (hold) {
    const timespec nap{.tv_sec = 0, .tv_nsec = 1'000'000};
    nanosleep(&nap, nullptr);
  }
}

internal::Progress::Stage StageOf(internal::LocalGroup& group, int rank) {
  return internal::Progress::Unpack(group.slot(rank).progress.load(std::memory_order_acquire))
      .stage;
}

// A group of two whose rank 0 stands still inside a barrier, and what its call returned at last.
class HeldInside {
 public:
  explicit HeldInside(std::chrono::nanoseconds timeout) {
    struct sigaction action {};
    action.sa_handler = StandStill;
    sigaction(SIGUSR1, &action, nullptr);
    group = *internal::LocalGroup::Create(std::vector<Stream>(2), {0, 1}, nullptr,
                                          {.transport = {.timeout = timeout}});
    thread_ = std::thread([this] { status = internal::LocalCommunicator(group, 0).Barrier(); });
    while (StageOf(*group, 0) != internal::Progress::Stage::kPublished) std::this_thread::yield();
    hold = true;
    held = false;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    while (!held) std::this_thread::yield();
  }
  void LetGo() {
    hold = false;
    thread_.join();
  }

  std::shared_ptr<internal::LocalGroup> group;
  absl::Status status;

 private:
  std::thread thread_;
};

TEST_CASE("a reset waits for a rank that is still inside the failed round, and says if in vain") {
  SURVIVES([]() -> absl::Status {
    HeldInside rank(std::chrono::milliseconds(500));
    internal::LocalGroup& group = *rank.group;
    group.AbortFromOutside([] { return absl::AbortedError("enough"); });
    const auto start = std::chrono::steady_clock::now();
    const absl::Status early = group.Reset();
    const auto took = std::chrono::steady_clock::now() - start;
    const bool still_failed = group.FirstCause() == absl::AbortedError("enough");
    rank.LetGo();
    LOCKSTEP_RETURN_IF_ERROR(
        ExpectStatus(early, Code::kDeadlineExceeded,
                     "reset: a rank has been inside the failed round for 0.5 s more; try again"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(took >= std::chrono::milliseconds(500), "did not wait"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(still_failed, "the group was reset under a rank"));
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(rank.status, Code::kAborted, "barrier #1: enough"));
    LOCKSTEP_RETURN_IF_ERROR(group.Reset());
    return group.FirstCause();
  });
}

TEST_CASE("a reset that waits for a rank goes on as soon as that has left") {
  SURVIVES([]() -> absl::Status {
    HeldInside rank(std::chrono::seconds(50));
    rank.group->AbortFromOutside([] { return absl::AbortedError("enough"); });
    std::atomic<bool> reset{false};
    absl::Status healed;
    std::thread resetter([&] {
      healed = rank.group->Reset();
      reset = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const bool early = reset;
    rank.LetGo();
    resetter.join();
    LOCKSTEP_RETURN_IF_ERROR(Expect(!early, "the group was reset under a rank"));
    LOCKSTEP_RETURN_IF_ERROR(healed);
    // A second reset, of a healthy group, waits for nobody.
    return rank.group->Reset();
  });
}

constexpr std::size_t kPageBytes = 4096;
void* page = nullptr;

// The first thread that touches the page stands still, and then goes on.
void OpenPage(int) {
  StandStill(0);
  mprotect(page, kPageBytes, PROT_READ | PROT_WRITE);
}

TEST_CASE(
    "a rank that stands still while it moves data is named, the others are warned of it, and it is "
    "given the same verdict") {
  SURVIVES([]() -> absl::Status {
    struct sigaction action {};
    action.sa_handler = OpenPage;
    sigaction(SIGSEGV, &action, nullptr);
    page = mmap(nullptr, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    hold = true;
    const std::vector<float> in(100);
    LOCKSTEP_ASSIGN_OR_RETURN(auto executor, Executor::Create({.world_size = 2}));
    LOCKSTEP_ASSIGN_OR_RETURN(
        const auto group,
        internal::LocalGroup::Create(executor->rank_streams(), {0, 1}, executor->observers(),
                                     {.transport = {.timeout = std::chrono::milliseconds(300)}}));
    std::vector<absl::Status> told(2);
    LOCKSTEP_RETURN_IF_ERROR(executor->Run([&](Worker& worker) -> absl::Status {
      internal::LocalCommunicator comm(group, worker.rank());
      // Rank 0 has nothing to move.
      told[worker.rank()] =
          comm.ReduceScatter(Tensor::View(const_cast<float*>(in.data()), {100}, DType::kFloat32),
                             Tensor::View(page, {100 * worker.rank()}, DType::kFloat32));
      if (worker.rank() == 0) hold = false;
      return absl::OkStatus();
    }));
    const std::string verdict =
        "reduce_scatter #1 (float32 x 100 -> 0, sum): rank 1 did not finish moving data within 0.3 "
        "s; rank 0 waited";
    LOCKSTEP_RETURN_IF_ERROR(
        ExpectStatus(told[0], Code::kDeadlineExceeded,
                     verdict + "; a rank is still moving data, and may touch this rank's memory"));
    LOCKSTEP_RETURN_IF_ERROR(ExpectStatus(told[1], Code::kDeadlineExceeded, verdict));
    return Expect(told[1].message() == verdict, told[1].ToString());
  });
}

// This thread's CPU time.
std::chrono::microseconds CpuTime() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  const auto of = [](const timeval& time) {
    return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

TEST_CASE("a rank that waits for long leaves its core to others") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(2));
    return ranks.Run([](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      if (worker.rank() == 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
        return AllReduceOne(comm);
      }
      const auto before = CpuTime();
      LOCKSTEP_RETURN_IF_ERROR(AllReduceOne(comm));
      const auto burnt = CpuTime() - before;
      return Expect(burnt < std::chrono::milliseconds(100),
                    absl::StrCat("waiting took ", burnt.count(), " us of a core"));
    });
  });
}

TEST_CASE("a group split off a split group hears of its own ranks' tasks, and of no others'") {
  SURVIVES([]() -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Ranks ranks, Ranks::Create(5));
    std::atomic<bool> told{false};
    absl::Status waited;
    bool undisturbed = false;
    const absl::Status run = ranks.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
      // Ranks 1 to 4; of these 3 and 4.
      LOCKSTEP_ASSIGN_OR_RETURN(auto child, comm.Split(worker.rank() > 0 ? 0 : 1, 0));
      LOCKSTEP_ASSIGN_OR_RETURN(auto grandchild, child->Split(worker.rank() > 2 ? 0 : 1, 0));
      LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      switch (worker.rank()) {
        case 3:
          // Ranks 1 and 2 have ended their tasks by then, and are not in this group.
          LOCKSTEP_RETURN_IF_ERROR(grandchild->Barrier());
          undisturbed = true;
          waited = grandchild->Barrier();
          told = true;
          return absl::OkStatus();
        case 4:
          std::this_thread::sleep_for(std::chrono::milliseconds(100));
          return grandchild->Barrier();
        case 0:
          while (!told) std::this_thread::yield();
          return absl::OkStatus();
        default:
          return absl::OkStatus();
      }
    });
    LOCKSTEP_RETURN_IF_ERROR(run);
    LOCKSTEP_RETURN_IF_ERROR(Expect(undisturbed, "another rank's task counted"));
    return ExpectStatus(waited, Code::kAborted, "rank 1 ended the task and will not arrive");
  });
}

}  // namespace
}  // namespace lockstep
