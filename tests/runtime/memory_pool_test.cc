#include "lockstep/runtime/memory_pool.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "lockstep/runtime/graph.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tests/runtime/devices.h"

namespace lockstep {
namespace {

using testing::MakeWorker;
using testing::Says;
using testing::TestDevices;

// What this process has mapped.
std::int64_t ProcessBytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::shared_ptr<MemoryPool> MakePool() {
  auto pool = MemoryPool::Create(Stream());
  REQUIRE_OK(pool);
  return *pool;
}

TEST_CASE(
    "a loop that asks for the same sizes asks nothing more of the system after its first turn") {
  const auto pool = MakePool();
  std::int64_t reserved = 0;
  for (int turn = 0; turn < 10; ++turn) {
    std::vector<std::shared_ptr<void>> blocks;
    for (const std::int64_t bytes : {0, 1, 64, 65, 1000, 4096, 100000, 3 << 20}) {
      auto block = pool->Allocate(bytes);
      REQUIRE_OK(block);
      CHECK(reinterpret_cast<std::uintptr_t>(block->get()) % 64 == 0);
      std::memset(block->get(), turn, static_cast<std::size_t>(bytes));
      blocks.push_back(*block);
    }
    if (turn == 0) reserved = pool->reserved_bytes();
  }
  CHECK(reserved > 0);
  CHECK(pool->reserved_bytes() == reserved);
}

TEST_CASE("blocks in use are distinct") {
  const auto pool = MakePool();
  const auto a = *pool->Allocate(100);
  const auto b = *pool->Allocate(100);
  CHECK(a != b);
}

TEST_CASE("at most a quarter more is taken than asked for") {
  for (std::int64_t bytes = 256; bytes < (1 << 24); bytes = bytes * 5 / 3) {
    const auto pool = MakePool();
    const auto block = *pool->Allocate(bytes);
    CHECK(pool->reserved_bytes() >= bytes);
    CHECK(pool->reserved_bytes() <= bytes + bytes / 4 + 64);
  }
}

TEST_CASE("blocks may outlive the pool, and may be freed on any thread") {
  std::shared_ptr<void> survivor;
  {
    const auto pool = MakePool();
    survivor = *pool->Allocate(1000);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&pool] {
        for (int i = 0; i < 1000; ++i) {
          auto block = pool->Allocate(64 * (i % 7 + 1));
          if (block.ok()) std::memset(block->get(), i, 64);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::memset(survivor.get(), 1, 1000);
}

TEST_CASE("a request that cannot be is refused, and says what the pool has") {
  const auto pool = MakePool();
  const auto held = *pool->Allocate(1000);
  const auto free = pool->Allocate(64)->get();
  CHECK(free != nullptr);
  for (const std::int64_t bytes : {std::int64_t{-1}, std::int64_t{1} << 62, INT64_MAX}) {
    const absl::Status status = pool->Allocate(bytes).status();
    CHECK(status.code() == absl::StatusCode::kResourceExhausted);
    CHECK(Says(status, absl::StrCat(bytes, " bytes asked for on the CPU")));
    CHECK(Says(status, "has 1024 in use"));
  }
  CHECK(MemoryPool::Create(Stream(Device::Cuda(1007), nullptr)).status().code() ==
        absl::StatusCode::kUnavailable);
}

TEST_CASE("every device: a pool tells what is used and what is free, and gives the free back",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    MemoryPool& pool = worker.memory();
    const auto small = *pool.Allocate(100000);
    auto large = *pool.Allocate(64 << 20);
    CHECK(pool.free_bytes() == 0);
    const std::int64_t used = pool.used_bytes();
    CHECK(used >= (64 << 20) + 100000);
    large.reset();
    CHECK(pool.free_bytes() == 64 << 20);
    CHECK(pool.used_bytes() == used - (64 << 20));
    CHECK(pool.reserved_bytes() >= used);
    const std::int64_t reserved = pool.reserved_bytes();
    const auto trimmed = pool.Trim();
    REQUIRE_OK(trimmed);
    // CUDA's pool has pieces of 32 MiB, one of which the small block holds.
    CHECK(*trimmed >= (device.is_cpu() ? 64 : 32) << 20);
    CHECK(pool.free_bytes() == 0);
    CHECK(pool.used_bytes() == used - (64 << 20));
    CHECK(pool.reserved_bytes() == reserved - *trimmed);
    CHECK(*pool.Trim() == 0);
    REQUIRE_OK(pool.Allocate(64 << 20));
  }
}

TEST_CASE("what a pool on the CPU gives back, the process has no more") {
  const auto pool = MakePool();
  const std::int64_t before = ProcessBytes();
  std::vector<std::shared_ptr<void>> blocks;
  for (const std::int64_t mib : {2, 3, 5, 40, 64}) blocks.push_back(*pool->Allocate(mib << 20));
  CHECK(ProcessBytes() - before >= 114 << 20);
  const auto kept = blocks[0];
  blocks.clear();
  CHECK(ProcessBytes() - before >= 114 << 20);
  CHECK(*pool->Trim() == 112 << 20);
  CHECK(ProcessBytes() - before < 4 << 20);
}

TEST_CASE(
    "blocks that outlive their pool go with their last owners, and the others with the pool") {
  const std::int64_t before = ProcessBytes();
  std::shared_ptr<void> survivor;
  {
    const auto pool = MakePool();
    survivor = *pool->Allocate(64 << 20);
    (void)*pool->Allocate(40 << 20);
    CHECK(ProcessBytes() - before >= 104 << 20);
  }
  CHECK(ProcessBytes() - before < 70 << 20);
  std::memset(survivor.get(), 1, 64 << 20);
  survivor.reset();
  CHECK(ProcessBytes() - before < 4 << 20);
}

TEST_CASE(
    "every device: a thousand requests of growing and changing size stay in three times the peak",
    "[gpu]") {
  for (const Device device : TestDevices()) {
    Worker worker = MakeWorker(device);
    MemoryPool& pool = worker.memory();
    std::int64_t peak = 0;
    std::uint64_t random = 1;
    bool within = true;
    std::shared_ptr<void> former[3];
    for (std::int64_t turn = 0; turn < 1000; ++turn) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      // Up to 10 MiB at the end, every other one of any size below.
      const std::int64_t grown = 1000 + turn * 10000;
      const std::int64_t bytes =
          turn % 2 == 0 ? grown : static_cast<std::int64_t>(random >> 33) % grown;
      former[turn % 3].reset();
      auto block = pool.Allocate(bytes);
      REQUIRE_OK(block);
      former[turn % 3] = *block;
      peak = std::max(peak, pool.used_bytes());
      within = within && pool.used_bytes() + pool.free_bytes() <= 3 * peak;
    }
    CHECK(within);
    // And it keeps what it may: nothing goes back for less.
    CHECK(pool.used_bytes() + pool.free_bytes() > 2 * peak);
    for (auto& block : former) block.reset();
    REQUIRE_OK(pool.Trim());
    CHECK(pool.used_bytes() + pool.free_bytes() == 0);
  }
}

TEST_CASE("the blocks that lay free longest go first, and no more of them than must") {
  constexpr std::int64_t kUnit = 1 << 17;
  const auto pool = MakePool();
  // One after the other, eighths of a MiB, each a size of its own: 8 were in use at once.
  const auto visit = [&](std::int64_t eighths) {
    REQUIRE_OK(pool->Allocate(eighths * kUnit));
    return pool->reserved_bytes() / kUnit;
  };
  CHECK(visit(8) == 8);
  CHECK(visit(7) == 15);
  CHECK(visit(6) == 21);
  CHECK(visit(8) == 21);  // from what is free
  CHECK(visit(3) == 24);  // three times as many as ever at once
  CHECK(visit(5) == 22);  // the 7 lay longest
  CHECK(visit(8) == 22);
  CHECK(visit(7) == 23);  // the 6 lay longest
  CHECK(visit(8) == 23);
  CHECK(visit(3) == 23);
  CHECK(visit(5) == 23);
}

TEST_CASE("what lies free goes back before memory runs out") {
  REQUIRE_OK(testing::RunInChild(absl::Seconds(60), []() -> absl::Status {
    constexpr std::int64_t kMib = 1 << 20;
    const auto limit = static_cast<rlim_t>(ProcessBytes() + 1000 * kMib);
    const rlimit limits = {limit, limit};
    setrlimit(RLIMIT_AS, &limits);
    LOCKSTEP_ASSIGN_OR_RETURN(const auto pool, MemoryPool::Create(Stream()));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto held, pool->Allocate(100 * kMib));
    for (const std::int64_t mib : {768, 640, 512, 448, 700}) {
      LOCKSTEP_ASSIGN_OR_RETURN(const auto block, pool->Allocate(mib * kMib));
      std::memset(block.get(), 1, 4096);
    }
    const absl::Status status = pool->Allocate(950 * kMib).status();
    LOCKSTEP_RETURN_IF_ERROR(testing::ExpectStatus(
        status, absl::StatusCode::kResourceExhausted,
        absl::StrCat(950 * kMib,
                     " bytes asked for on the CPU, and there are not that many; this "
                     "rank's pool has ",
                     pool->used_bytes(), " in use and 0 free")));
    return pool->Allocate(768 * kMib).status();
  }));
}

TEST_CASE("every GPU: what lies free goes back before memory runs out, but not during a capture",
          "[gpu]") {
  for (const Device device : TestDevices()) {
    if (device.is_cpu()) continue;
    Worker worker = MakeWorker(device);
    MemoryPool& pool = worker.memory();
    constexpr std::int64_t kGib = 1 << 30;
    std::vector<std::shared_ptr<void>> all;
    for (auto block = pool.Allocate(kGib); block.ok(); block = pool.Allocate(kGib))
      all.push_back(*block);
    const auto count = static_cast<std::int64_t>(all.size());
    REQUIRE(count > 4);
    // A size that is not rounded up.
    const std::int64_t large = static_cast<std::int64_t>(std::bit_floor(all.size() - 2)) * kGib;
    all.clear();
    CHECK(pool.free_bytes() == count * kGib);
    absl::Status trimmed, allocated;
    const auto graph = Graph::Capture(worker, [&]() -> absl::Status {
      trimmed = pool.Trim().status();
      allocated = pool.Allocate(large).status();
      return absl::OkStatus();
    });
    CHECK(trimmed.code() == absl::StatusCode::kFailedPrecondition);
    CHECK(Says(trimmed, "is being captured"));
    CHECK(allocated.code() == absl::StatusCode::kResourceExhausted);
    CHECK(pool.free_bytes() == count * kGib);
    // In one piece, which no block that is free could serve.
    REQUIRE_OK(pool.Allocate(large));
    CHECK(pool.free_bytes() == large);
    REQUIRE_OK(pool.Trim());
    CHECK(pool.reserved_bytes() < kGib);
  }
}

}  // namespace
}  // namespace lockstep
