#include "lockstep/runtime/memory_pool.h"

#include <cstring>
#include <thread>
#include <vector>

#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

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

TEST_CASE("more than there is, and devices that are not there, are refused") {
  CHECK(MakePool()->Allocate(std::int64_t{1} << 62).status().code() ==
        absl::StatusCode::kResourceExhausted);
  CHECK(MakePool()->Allocate(-1).status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(MemoryPool::Create(Stream(Device::Cuda(1007), nullptr)).status().code() ==
        absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lockstep
