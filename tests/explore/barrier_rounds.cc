// Rounds of the barrier word that nothing disturbs. No wait ends by itself: a forgotten wake is a
// deadlock.
#include "lockstep/tests/explore/barrier_group.h"
#include "lockstep/tests/explore/scenario.h"

namespace lockstep::explore {
namespace {

constexpr int kRounds = 2;
constexpr std::uint32_t kLastGeneration = (1u << 19) - 1;

int RunRounds(int world_size, PatienceLimits limits, std::uint32_t first_generation = 0) {
  Group group(world_size, limits, first_generation);
  TheMachine().Run(world_size, world_size, [&](int rank) {
    for (int round = 0; round < kRounds; ++round) group.Meet(rank, round, kNever);
  });
  TheMachine().Check(group.word().health().culprit == -1, "poisoned for no reason");
  return group.Outcome(kRounds);
}

int Parking(int world_size) { return RunRounds(world_size, kImpatient); }
int Polling(int world_size) { return RunRounds(world_size, {.budget = kTick, .close_polls = 1}); }
int Wrapping(int world_size) { return RunRounds(world_size, kImpatient, kLastGeneration); }

// Who has had to wait for its core sleeps at once, in this wait and the next.
int TakingTurns(int world_size) {
  return RunRounds(world_size, {.budget = 3 * kLeap, .close_polls = 0, .longest_turn = kLeap / 2});
}

// Without accidents a wait is one sleep and a release one wake, and who polls sees it at once.
int AtNoCost(int world_size) {
  Machine& machine = TheMachine();
  RunRounds(world_size, kImpatient);
  machine.Check(machine.parks() == kRounds * (world_size - 1), "a sleep in vain");
  machine.Check(machine.unparks() == kRounds, "a wake in vain");
  const Time start = machine.Now();
  const int parks = machine.parks();
  RunRounds(world_size, {.budget = 100 * kTick});
  machine.Check(machine.parks() == parks, "a sleep of one who may poll");
  machine.Check(machine.Now() == start, "polls in vain");
  return 0;
}

// The largest group and the largest numbers.
int Limits(int world_size) {
  constexpr std::uint32_t kEpochs = 1u << 12;
  constexpr int kHighestBitOfCount = 1 << 9;
  Machine& machine = TheMachine();
  Word word(world_size);
  Patience patience;
  for (std::uint32_t epoch = 0; epoch < kEpochs; ++epoch) {
    machine.Check(word.health().epoch == epoch, "an epoch was left out");
    word.Poison(world_size, epoch);
    machine.Check(word.health().culprit == world_size, "not the culprit");
    word.Reset();
  }
  machine.Check(word.health().epoch == 0, "the epochs do not begin again");
  for (int rank = 0; rank < kHighestBitOfCount; ++rank) word.Depart();
  const auto outcome = word.Meet(
      world_size - 1, 0, kNever, patience, [] { return true; }, [](auto) {});
  machine.Check(outcome.verdict == Word::Verdict::kPoisoned, "nobody was missed");
  Word alone(1);
  alone.Depart();
  const auto departed = alone.Meet(
      0, 0, kNever, patience, [] { return true; }, [](auto) {});
  machine.Check(departed.verdict == Word::Verdict::kPoisoned && !departed.arrived,
                "who has departed was counted");
  return 0;
}

// The ranks agree in the first round, and not in the second.
int Disagreeing(int world_size) {
  Group group(world_size);
  group.DisagreeFrom(1);
  TheMachine().Run(world_size, world_size, [&](int rank) {
    for (int round = 0; round < kRounds; ++round) group.Meet(rank, round, kNever);
  });
  return group.Outcome(kRounds);
}

}  // namespace

std::vector<Scenario> BarrierRounds() {
  const Bounds chance{1000, 8, 0};
  return {
      {"barrier/rounds",
       Parking,
       {11},
       {{2, {6, 2, 0}},
        {3, {3, 1, 0}},
        {3, {4, 0, 0}},
        {4, {2, 0, 0}},
        {5, chance, 100000},
        {8, chance, 100000}}},
      {"barrier/polling", Polling, {11}, {{2, {4, 1, 0}}, {3, {3, 0, 0}}, {6, chance, 50000}}},
      {"barrier/taking_turns",
       TakingTurns,
       {11},
       {{2, {4, 1, 1}}, {3, {2, 0, 1}}, {7, {1000, 8, 2}, 50000}}},
      {"barrier/generation_wraps", Wrapping, {11}, {{3, {3, 0, 0}}, {8, chance, 20000}}},
      {"barrier/at_no_cost", AtNoCost, {0}, {{2, {0, 0, 0}}, {3, {0, 0, 0}}}},
      {"barrier/limits", Limits, {0}, {{Word::kMaxRanks, {0, 0, 0}}}},
      {"barrier/disagreement", Disagreeing, {12}, {{3, {3, 0, 0}}, {8, chance, 20000}}},
  };
}

}  // namespace lockstep::explore
