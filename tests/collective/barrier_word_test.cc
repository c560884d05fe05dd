#include "lockstep/collective/barrier_word.h"

#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "lockstep/tests/catch.h"

namespace lockstep::internal {
namespace {

using Word = BarrierWord<NativePlatform>;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const auto kAgree = [] { return true; };
const auto kSilent = [](auto) {};

// Waits like a thread that has not waited before.
template <typename Platform, typename Agree, typename Explain>
auto Meet(BarrierWord<Platform>& word, int rank, std::uint32_t epoch, nanoseconds timeout,
          Agree agree, Explain explain) {
  Patience<Platform> patience;
  return word.Meet(rank, epoch, timeout, patience, agree, explain);
}

// Runs body(rank) on a thread per rank.
template <typename Body>
void OnThreads(int world_size, Body body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE(
    "a barrier word lets nobody leave before all have arrived, and shows what they wrote before") {
  for (const int world_size : {1, 2, 3, 8}) {
    Word word(world_size);
    // Not atomic: the word must order it.
    std::vector<int> written(static_cast<std::size_t>(world_size), 0);
    std::atomic<int> wrong{0};
    OnThreads(world_size, [&](int rank) {
      for (int round = 1; round <= 2000; ++round) {
        written[rank] = round;
        Meet(word, rank, 0, seconds(60), kAgree, kSilent);
        for (const int value : written) wrong += value != round;
        Meet(word, rank, 0, seconds(60), kAgree, kSilent);
      }
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("F50: a barrier word's generation wraps around without a trace", "[fault]") {
  constexpr int kRanks = 3;
  Word word(kRanks, (1u << 19) - 5);
  std::atomic<int> completed{0};
  OnThreads(kRanks, [&](int rank) {
    for (int round = 0; round < 10; ++round) {
      completed +=
          Meet(word, rank, 0, seconds(60), kAgree, kSilent).verdict == Word::Verdict::kCompleted;
    }
  });
  CHECK(completed == 10 * kRanks);
  CHECK(word.health().culprit == -1);
}

TEST_CASE(
    "whoever waits too long poisons the word, after it has explained, and all that come later see "
    "it") {
  Word word(2);
  bool explained = false;
  const auto start = Clock::now();
  const auto outcome = Meet(word, 0, 0, milliseconds(20), kAgree, [&](Word::Reason reason) {
    explained = reason == Word::Reason::kTimeout;
  });
  CHECK(Clock::now() - start >= milliseconds(20));
  CHECK(outcome.verdict == Word::Verdict::kPoisoned);
  CHECK(outcome.culprit == 0);
  CHECK(outcome.waited >= milliseconds(20));
  CHECK(explained);
  CHECK(Meet(word, 1, 0, seconds(60), kAgree, kSilent).culprit == 0);
}

TEST_CASE("the rank that comes last says whether the ranks agree, before the round is complete") {
  Word word(3);
  std::atomic<int> asked{0};
  std::array<Word::Outcome, 3> outcomes;
  OnThreads(3, [&](int rank) {
    const auto disagree = [&] {
      ++asked;
      return false;
    };
    outcomes[rank] = Meet(word, rank, 0, seconds(60), disagree, kSilent);
  });
  CHECK(asked == 1);
  for (const auto& outcome : outcomes) {
    CHECK(outcome.verdict == Word::Verdict::kPoisoned);
    CHECK(outcome.culprit == outcomes[0].culprit);
  }
}

TEST_CASE("the first poison stays") {
  Word word(2);
  word.Poison(1, /*epoch=*/0);
  word.Poison(0, /*epoch=*/0);
  CHECK(word.health().culprit == 1);
}

TEST_CASE("a reset begins an epoch in which calls of the last one are stale and change nothing") {
  Word word(2);
  word.Poison(1, /*epoch=*/0);
  word.Reset();
  word.Poison(0, /*epoch=*/0);
  CHECK(word.health().culprit == -1);
  CHECK(word.health().epoch == 1);
  CHECK(Meet(word, 0, 0, seconds(60), kAgree, kSilent).verdict == Word::Verdict::kStale);
  std::atomic<int> completed{0};
  OnThreads(2, [&](int rank) {
    completed +=
        Meet(word, rank, 1, seconds(60), kAgree, kSilent).verdict == Word::Verdict::kCompleted;
  });
  CHECK(completed == 2);
}

TEST_CASE("resetting a healthy word changes nothing") {
  Word word(2);
  word.Reset();
  CHECK(word.health().epoch == 0);
}

TEST_CASE("a rank that departs frees those that wait, and those that come after it") {
  Word word(2);
  Word::Outcome waited;
  std::thread waiter([&] { waited = Meet(word, 0, 0, seconds(60), kAgree, kSilent); });
  std::this_thread::sleep_for(milliseconds(20));
  word.Depart();
  waiter.join();
  CHECK(waited.verdict == Word::Verdict::kPoisoned);
  CHECK(waited.culprit == 0);

  Word early(2);
  early.Depart();
  CHECK(early.health().culprit == -1);
  CHECK(Meet(early, 0, 0, seconds(60), kAgree, kSilent).culprit == 0);
}

TEST_CASE("departed ranks that return are expected again") {
  Word word(2);
  word.Depart();
  word.Depart();
  word.Return();
  std::atomic<int> completed{0};
  OnThreads(2, [&](int rank) {
    completed +=
        Meet(word, rank, 0, seconds(60), kAgree, kSilent).verdict == Word::Verdict::kCompleted;
  });
  CHECK(completed == 2);
}

TEST_CASE("a parked rank is woken by the release, not by its deadline") {
  Word word(2);
  nanoseconds longest{0};
  std::thread waiter([&] {
    for (int round = 0; round < 50; ++round) {
      longest = std::max(longest, Meet(word, 0, 0, seconds(60), kAgree, kSilent).waited);
    }
  });
  for (int round = 0; round < 50; ++round) {
    std::this_thread::sleep_for(milliseconds(2));
    Meet(word, 1, 0, seconds(60), kAgree, kSilent);
  }
  waiter.join();
  // After a forgotten wake it would sleep for the whole minute.
  CHECK(longest < seconds(30));
}

// A clock that occasionally jumps far ahead, so that waits time out just as the last rank arrives.
struct ErraticPlatform : NativePlatform {
  static Clock::time_point Now() {
    thread_local std::minstd_rand random(
        static_cast<unsigned>(std::hash<std::thread::id>()(std::this_thread::get_id())));
    return Clock::now() + (random() % 3 == 0 ? std::chrono::hours(1) : std::chrono::hours(0));
  }
};

TEST_CASE("F6: when a time-out collides with the last arrival, all ranks get one verdict",
          "[fault]") {
  using Erratic = BarrierWord<ErraticPlatform>;
  constexpr int kRanks = 3;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kTries = 20'000;
#else
  constexpr int kTries = 1'000'000;
#endif
  Erratic word(kRanks);
  BarrierWord<NativePlatform> fence(kRanks);
  std::array<std::atomic<int>, kRanks> verdicts{};
  std::array<int, 2> seen{};
  int split = 0;
  OnThreads(kRanks, [&](int rank) {
    std::uint32_t epoch = 0;
    for (int attempt = 0; attempt < kTries; ++attempt) {
      const auto outcome = Meet(word, rank, epoch, std::chrono::minutes(1), kAgree, kSilent);
      verdicts[rank] = outcome.verdict == Erratic::Verdict::kCompleted;
      Meet(fence, rank, 0, seconds(60), kAgree, kSilent);
      if (rank == 0) {
        for (const auto& verdict : verdicts) split += verdict != verdicts[0];
        ++seen[verdicts[0].load()];
        word.Reset();
      }
      Meet(fence, rank, 0, seconds(60), kAgree, kSilent);
      epoch = word.health().epoch;
    }
  });
  CHECK(split == 0);
  // The collision was really provoked: both outcomes came up.
  CHECK(seen[0] > 0);
  CHECK(seen[1] > 0);
}

}  // namespace
}  // namespace lockstep::internal
