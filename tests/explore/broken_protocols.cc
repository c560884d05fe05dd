// Protocols that are wrong: each has to be found, and its replay string has to bring it back.
#include <optional>

#include "lockstep/tests/explore/scenario.h"
#include "lockstep/tests/explore/simulated_platform.h"

namespace lockstep::explore {
namespace {

using Word = SimulatedAtomic<std::uint64_t>;
using Platform = SimulatedPlatform;
using Order = std::memory_order;

// Sleeps until the word is 2; bit 0 says that somebody sleeps.
void AwaitTwo(Word& word, nanoseconds timeout) {
  const Time deadline = Platform::Now() + timeout;
  std::uint64_t seen = word.load(Order::acquire);
  while ((seen & 2) == 0 && Platform::Now() < deadline) {
    if (seen == 1 || word.compare_exchange_weak(seen, 1, Order::acquire, Order::acquire)) {
      Platform::Park(word, 1, deadline);
      seen = word.load(Order::acquire);
    }
  }
}

// The waker looks whether somebody sleeps before it writes, and not as it writes.
template <bool kBroken>
void WakeWithTwo(Word& word) {
  bool sleeps = (word.load(Order::acquire) & 1) != 0;
  const bool slept = (word.exchange(2, Order::acq_rel) & 1) != 0;
  if (!kBroken) sleeps = slept;
  if (sleeps) Platform::UnparkAll(word);
}

template <bool kBroken, bool kTimed>
int Wake(int) {
  Word word(0);
  TheMachine().Run(2, 0, [&](int thread) {
    thread == 0 ? AwaitTwo(word, kTimed ? nanoseconds(kLeap) : kNever) : WakeWithTwo<kBroken>(word);
  });
  return 0;
}

// Nobody ever writes what is polled for.
int PollForNothing(int) {
  Word word(0);
  TheMachine().Run(2, 0, [&](int thread) {
    while (thread == 0 && word.load(Order::acquire) == 0) Platform::Yield();
  });
  return 0;
}

// The last one looks at the counter once more when the owner may have destroyed it.
template <bool kBroken>
int CountDown(int) {
  std::optional<Word> counter(std::in_place, 2);
  TheMachine().Run(3, 2, [&](int thread) {
    if (thread < 2) {
      counter->fetch_sub(1, Order::acq_rel);
      if (kBroken && counter->load(Order::acquire) == 0) Platform::UnparkAll(*counter);
      return;
    }
    while (counter->load(Order::acquire) != 0) Platform::Yield();
    counter.reset();
  });
  return 0;
}

// As above, and the destruction is not ordered after the others' last access.
int CountDownRelaxed(int) {
  std::optional<Word> counter(std::in_place, 1);
  TheMachine().Run(2, 0, [&](int thread) {
    if (thread == 0) {
      counter->fetch_sub(1, Order::relaxed);
      return;
    }
    while (counter->load(Order::relaxed) != 0) Platform::Yield();
    counter.reset();
  });
  return 0;
}

// A barrier of two ranks with a word for the arrivals and one for the poison, which can contradict
// each other: one leaves well, the other with a time-out.
template <bool kTwoWords>
int SplitBarrier(int) {
  constexpr std::uint64_t kPoison = 4;
  Word arrived(0);
  Word other(0);
  Word& poison = kTwoWords ? other : arrived;
  int completed = 0;
  TheMachine().Run(2, 0, [&](int rank) {
    if (rank == 1) TheMachine().SleepUntil(Platform::Now() + kLeap);
    std::uint64_t seen = arrived.load(Order::acquire);
    while ((seen & kPoison) == 0 &&
           !arrived.compare_exchange_weak(seen, seen + 1, Order::acq_rel, Order::acquire)) {
    }
    if ((seen & kPoison) != 0) return;
    const Time deadline = Platform::Now() + kLeap;
    for (;;) {
      if ((poison.load(Order::acquire) & kPoison) != 0) return;
      seen = arrived.load(Order::acquire);
      if ((seen & 3) == 2) break;
      std::uint64_t expected = kTwoWords ? 0 : seen;
      if (Platform::Now() >= deadline &&
          poison.compare_exchange_weak(expected, expected | kPoison, Order::acq_rel,
                                       Order::acquire)) {
        return;
      }
      Platform::Yield();
    }
    ++completed;
  });
  TheMachine().Check(completed != 1, "one round, and two verdicts");
  return completed;
}

}  // namespace

std::vector<Scenario> BrokenProtocols() {
  const std::vector<Search> searches = {{2, {2, 1, 1}}, {2, {1000, 8, 2}, 1000}};
  return {
      {"broken/lost_wake", Wake<true, false>, {}, searches, "deadlock"},
      {"broken/lost_wake/mended", Wake<false, false>, {0}, searches},
      // A park with a deadline hides it, which is why the scenarios' deadlines never come.
      {"broken/lost_wake/hidden", Wake<true, true>, {0}, searches},
      {"broken/polls_for_ever", PollForNothing, {}, searches, "livelock"},
      {"broken/used_after_its_end", CountDown<true>, {}, searches, "others may still use"},
      {"broken/used_after_its_end/mended", CountDown<false>, {0}, searches},
      {"broken/destroyed_too_early", CountDownRelaxed, {}, searches, "others may still use"},
      {"broken/two_words", SplitBarrier<true>, {}, searches, "two verdicts"},
      {"broken/two_words/mended", SplitBarrier<false>, {0, 2}, searches},
  };
}

}  // namespace lockstep::explore
