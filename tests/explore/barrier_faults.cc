// Rounds of the barrier word that fail: at every moment, one verdict for all, and nobody stays.
#include <deque>

#include "lockstep/tests/explore/barrier_group.h"
#include "lockstep/tests/explore/scenario.h"

namespace lockstep::explore {
namespace {

constexpr auto kCompleted = Word::Verdict::kCompleted;

// The last rank never comes, and somebody looks on from outside.
int Absent(int world_size) {
  Group group(world_size);
  TheMachine().Run(world_size, world_size - 1, [&](int thread) {
    if (thread == world_size - 1) return group.CheckHealth();
    group.Meet(thread, 0, kLeap);
  });
  group.CheckHealth();
  return group.Outcome(1);
}

// The last rank comes just when the others have waited long enough.
int Late(int world_size) {
  Group group(world_size);
  TheMachine().Run(world_size, world_size - 1, [&](int rank) {
    if (rank == world_size - 1) TheMachine().SleepUntil(TheMachine().Now() + kLeap);
    group.Meet(rank, 0, kLeap);
  });
  return group.Outcome(1);
}

// Somebody from outside poisons the word at any moment.
int Poisoned(int world_size) {
  Group group(world_size);
  TheMachine().Run(world_size + 1, world_size, [&](int thread) {
    if (thread == world_size) {
      group.Diagnose(thread);
      group.word().Poison(thread, /*epoch=*/0);
      return;
    }
    for (int round = 0; round < 2; ++round) {
      if (group.Meet(thread, round, kNever) != kCompleted) return;
    }
  });
  TheMachine().Check(group.word().health().culprit == world_size, "the poison was lost");
  return group.Outcome(2);
}

// The last rank ends its task before or after the first round, the others when they miss it. A
// reset does not bring it back; a return does. Who knows only of the first epoch is told nothing of
// the next ones.
int Departing(int world_size) {
  Group group(world_size);
  Word& word = group.word();
  const int rounds_of_last = TheMachine().choices().Pick(2);
  TheMachine().Run(world_size, world_size - 1, [&](int rank) {
    const int rounds = rank == world_size - 1 ? rounds_of_last : 2;
    for (int round = 0; round < rounds; ++round) {
      if (group.Meet(rank, round, kNever) != kCompleted) break;
    }
    if (rank == world_size - 1) group.Depart();
  });
  TheMachine().Check(word.health().culprit >= 0, "nobody was missed");
  word.Reset();
  group.Meet(0, 2, kNever, /*epoch=*/1);
  group.Meet(1, 4, kNever, /*epoch=*/0);
  word.Reset();
  word.Reset();  // of a healthy word: nothing
  word.Return();
  TheMachine().Run(world_size, world_size,
                   [&](int rank) { group.Meet(rank, 3, kNever, /*epoch=*/2); });
  return group.Outcome(5);
}

// All end their task after one round: nobody is missed.
int DepartingTogether(int world_size) {
  Group group(world_size);
  TheMachine().Run(world_size, world_size, [&](int rank) {
    group.Meet(rank, 0, kNever);
    group.Depart();
  });
  TheMachine().Check(group.word().health().culprit == -1, "somebody was missed");
  group.word().Return();
  TheMachine().Run(world_size, world_size, [&](int rank) { group.Meet(rank, 1, kNever); });
  return group.Outcome(2);
}

// The last rank is late, or so late that the word has been reset meanwhile. As LocalGroup does it,
// the word is reset once, when every rank has been seen outside a call; one may enter the next
// moment.
int Straggling(int world_size) {
  Group group(world_size);
  Word& word = group.word();
  std::deque<SimulatedAtomic<int>> inside;
  for (int rank = 0; rank < world_size; ++rank) inside.emplace_back(0);
  SimulatedAtomic<int> resets(0);
  TheMachine().Run(world_size, world_size - 1, [&](int rank) {
    const bool late = rank == world_size - 1;
    if (late) TheMachine().SleepUntil(TheMachine().Now() + kLeap);
    SimulatedAtomic<int>& mine = inside[static_cast<std::size_t>(rank)];
    mine.store(1, std::memory_order_seq_cst);
    const Word::Verdict verdict = group.Meet(rank, 0, late ? nanoseconds(kNever) : kLeap);
    mine.store(0, std::memory_order_release);
    if (verdict == kCompleted) return;
    if (resets.fetch_add(1, std::memory_order_acq_rel) == 0) {
      TheMachine().Check(word.health().culprit >= 0, "reset for no reason");
      for (const SimulatedAtomic<int>& other : inside) {
        while (other.load(std::memory_order_seq_cst) != 0) SimulatedPlatform::Yield();
      }
      word.Reset();
    }
    while (word.health().epoch == 0) SimulatedPlatform::Yield();
    group.Meet(rank, 1, kNever, /*epoch=*/1);
  });
  return group.Outcome(2);
}

// The word is reset while others still wait, which it should not be: they learn that they are
// stale.
int ResetTooEarly(int world_size) {
  Group group(world_size);
  TheMachine().Run(world_size, world_size - 1, [&](int thread) {
    if (thread < world_size - 1) {
      group.Meet(thread, 0, kNever);
      return;
    }
    group.Diagnose(thread);
    group.word().Poison(thread, /*epoch=*/0);
    group.word().Reset();
  });
  return group.Outcome(1);
}

// A wait ends when its time is over, and not when the time to poll is.
int OnTime(int) {
  for (const nanoseconds budget : {nanoseconds(0), 3 * kLeap}) {
    Word word(2);
    Patience patience({.budget = budget, .close_polls = 1});
    TheMachine().Run(1, 0, [&](int rank) {
      const auto outcome = word.Meet(
          rank, 0, kLeap, patience, [] { return true; }, [](auto) {});
      TheMachine().Check(outcome.waited == kLeap, "waited too long, or not long enough");
    });
  }
  return 0;
}

// Somebody from outside poisons an epoch that is over, or just about to be: the next is untouched.
int PoisonedLate(int world_size) {
  Group group(world_size);
  Word& word = group.word();
  group.Diagnose(world_size);
  word.Poison(world_size, /*epoch=*/0);
  TheMachine().Run(world_size + 1, 0, [&](int thread) {
    if (thread == world_size) return word.Poison(thread, /*epoch=*/0);
    if (thread == 0) word.Reset();
    while (word.health().epoch == 0) SimulatedPlatform::Yield();
    group.Meet(thread, 0, kNever, /*epoch=*/1);
  });
  return group.Outcome(1);
}

// Everything at once: a rank that is late, one that departs, an abort, and time-outs. Then all is
// well again.
int Storm(int world_size) {
  Machine& machine = TheMachine();
  Group group(world_size);
  Word& word = group.word();
  const int late = machine.choices().Pick(world_size + 1);
  const int leaver = machine.choices().Pick(world_size + 1);
  const int aborts = machine.choices().Pick(3);
  machine.Run(world_size + 1, 0, [&](int thread) {
    if (thread == world_size) {
      if (aborts == 0) return group.CheckHealth();
      machine.SleepUntil(machine.Now() + kLeap * (aborts - 1));
      group.Diagnose(thread);
      return word.Poison(thread, 0);
    }
    for (int round = 0; round < 2; ++round) {
      if (thread == late) machine.SleepUntil(machine.Now() + kLeap);
      if (thread == leaver && round == 1) break;
      if (group.Meet(thread, round, kLeap) != kCompleted) break;
    }
    group.Depart();
  });
  group.CheckHealth();
  word.Reset();
  word.Return();
  const std::uint32_t epoch = word.health().epoch;
  machine.Run(world_size, 0, [&](int rank) {
    group.Meet(rank, 2, kNever, epoch);
    group.Meet(rank, 3, kNever, epoch);
  });
  return group.Outcome(4);
}

}  // namespace

std::vector<Scenario> BarrierFaults() {
  const Bounds chance{1000, 8, 0};
  const Bounds leaping{1000, 8, 2};
  return {
      {"barrier/absent",
       Absent,
       {2},
       {{3, {3, 1, 1}}, {4, {2, 0, 1}}, {6, leaping, 50000}, {8, leaping, 50000}}},
      {"barrier/late",
       Late,
       {1, 2},
       {{2, {4, 1, 1}}, {3, {3, 0, 1}}, {3, {2, 1, 1}}, {5, leaping, 50000}, {8, leaping, 50000}}},
      {"barrier/poisoned",
       Poisoned,
       {11, 12, 20},
       {{2, {4, 1, 0}}, {3, {3, 0, 0}}, {4, chance, 50000}, {8, chance, 50000}}},
      {"barrier/poisoned_late",
       PoisonedLate,
       {1},
       {{2, {3, 1, 0}}, {3, {2, 0, 0}}, {8, chance, 20000}}},
      {"barrier/departing",
       Departing,
       {12213, 20213},
       {{2, {3, 1, 0}}, {3, {3, 0, 0}}, {7, chance, 50000}}},
      {"barrier/departing_together",
       DepartingTogether,
       {11},
       {{2, {3, 1, 0}}, {3, {3, 0, 0}}, {8, chance, 20000}}},
      {"barrier/straggling",
       Straggling,
       {10, 21, 31},
       {{2, {3, 1, 1}}, {2, {1, 3, 1}}, {3, {2, 0, 0}}, {4, leaping, 50000}, {7, leaping, 50000}}},
      {"barrier/reset_too_early",
       ResetTooEarly,
       {2, 3},
       {{2, {4, 1, 0}}, {3, {3, 0, 0}}, {8, chance, 20000}}},
      {"barrier/on_time", OnTime, {0}, {{2, {0, 0, 0}}}},
      {"barrier/storm",
       Storm,
       {1111, 1211, 2011},
       {{4, leaping, 100000}, {6, leaping, 50000}, {8, leaping, 50000}}},
  };
}

}  // namespace lockstep::explore
