// Handing work to standing threads.
#include "lockstep/runtime/handover.h"

#include <array>
#include <optional>

#include "lockstep/tests/explore/scenario.h"
#include "lockstep/tests/explore/simulated_platform.h"

namespace lockstep::explore {
namespace {

using Handover = internal::Handover<SimulatedPlatform>;
using Patience = internal::Patience<SimulatedPlatform>;
using internal::PatienceLimits;

/// Sleeps at once.
constexpr PatienceLimits kImpatient{.budget = nanoseconds(0)};

// What the caller brings, and what each thread makes of it: all of it plain.
struct Work {
  Plain<int> input;
  std::array<Plain<int>, kMaxThreads> results;
  Plain<bool> stop;

  Plain<int>& result(int thread) { return results[static_cast<std::size_t>(thread)]; }
  // Thread 0's result of the piece before is read by all: what one did is known to the others.
  void Do(int thread) {
    const int piece = input.Read();
    if (piece > 1 && thread != 0) {
      TheMachine().Check(before.Read() == piece - 1, "the piece before is not known");
    }
    result(thread).Write(piece);
  }
  void CheckDone(int num_threads, int piece) {
    for (int thread = 0; thread < num_threads; ++thread) {
      TheMachine().Check(result(thread).Read() == piece, "a thread was not done");
    }
    before.Write(piece);
  }
  Plain<int> before;
};

// The caller is the last thread. It hands over two pieces, and then that it is all over.
int RunPieces(int num_threads, PatienceLimits limits) {
  Handover handover;
  Work work;
  TheMachine().Run(num_threads + 1, num_threads, [&](int thread) {
    Patience patience(limits);
    if (thread < num_threads) {
      for (std::uint32_t last = 0;;) {
        const std::uint32_t next = handover.AwaitWork(last, patience);
        TheMachine().Check(next == last + 1, "a piece was left out");
        last = next;
        if (work.stop.Read()) return;
        work.Do(thread);
        handover.Finish();
      }
    }
    for (int piece = 1; piece <= 2; ++piece) {
      work.input.Write(piece);
      work.stop.Write(false);
      handover.Start(num_threads);
      handover.AwaitDone(patience);
      work.CheckDone(num_threads, piece);
    }
    work.stop.Write(true);
    handover.Start(0);
  });
  return 0;
}

int Parking(int num_threads) { return RunPieces(num_threads, kImpatient); }
int Polling(int num_threads) { return RunPieces(num_threads, {.budget = kTick, .close_polls = 1}); }

// Without accidents a wait is one sleep and a wake is for those who sleep, and who polls sees at
// once what it waits for.
int AtNoCost(int num_threads) {
  Machine& machine = TheMachine();
  RunPieces(num_threads, kImpatient);
  // Each thread awaits three starts, the caller two ends.
  machine.Check(machine.parks() <= 3 * num_threads + 2, "a sleep in vain");
  machine.Check(machine.unparks() <= 3 + 2, "a wake in vain");
  const Time start = machine.Now();
  const int parks = machine.parks();
  RunPieces(num_threads, {.budget = 100 * kTick});
  machine.Check(machine.parks() == parks, "a sleep of one who may poll");
  machine.Check(machine.Now() == start, "polls in vain");
  return 0;
}

// After the largest number comes 0.
int NumbersWrap(int) {
  Handover handover;
  Patience patience;
  TheMachine().Check(handover.AwaitWork(0x7fffffff, patience) == 0, "the wrong piece");
  return 0;
}

// The caller destroys the handover as soon as all are done, and makes another one in its place.
int Destroying(int num_threads) {
  std::optional<Handover> handover(std::in_place);
  // Says outside of it which one is there.
  SimulatedAtomic<int> current(1);
  Work work;
  TheMachine().Run(num_threads + 1, num_threads, [&](int thread) {
    Patience patience(kImpatient);
    for (int piece = 1; piece <= 2; ++piece) {
      if (thread < num_threads) {
        while (current.load(std::memory_order_acquire) != piece) SimulatedPlatform::Yield();
        handover->AwaitWork(0, patience);
        work.Do(thread);
        handover->Finish();
        continue;
      }
      work.input.Write(piece);
      handover->Start(num_threads);
      handover->AwaitDone(patience);
      handover.reset();
      work.CheckDone(num_threads, piece);
      if (piece == 2) break;
      handover.emplace();
      current.store(2, std::memory_order_release);
    }
  });
  return 0;
}

// A thread joins between two pieces, knowing the last one's number alone.
int Joining(int num_threads) {
  Handover handover;
  Work work;
  for (int piece = 1; piece <= 2; ++piece) {
    const std::uint32_t current = handover.current();
    TheMachine().Run(num_threads + 1, num_threads, [&](int thread) {
      Patience patience(kImpatient);
      if (thread < num_threads) {
        TheMachine().Check(handover.AwaitWork(current, patience) == current + 1,
                           "a piece was left out");
        work.Do(thread);
        handover.Finish();
        return;
      }
      work.input.Write(piece);
      handover.Start(num_threads);
      handover.AwaitDone(patience);
      work.CheckDone(num_threads, piece);
    });
  }
  return 0;
}

}  // namespace

std::vector<Scenario> Handovers() {
  const Bounds chance{1000, 8, 0};
  return {
      {"handover/pieces",
       Parking,
       {0},
       {{1, {4, 1, 0}},
        {2, {3, 0, 0}},
        {2, {2, 1, 0}},
        {3, {2, 0, 0}},
        {4, chance, 50000},
        {8, chance, 50000}}},
      {"handover/polling", Polling, {0}, {{1, {4, 1, 0}}, {2, {2, 0, 0}}, {6, chance, 50000}}},
      {"handover/at_no_cost", AtNoCost, {0}, {{2, {}, 5000}, {4, {}, 5000}}},
      {"handover/numbers_wrap", NumbersWrap, {0}, {{0, {0, 0, 0}}}},
      {"handover/destroying",
       Destroying,
       {0},
       {{1, {4, 1, 0}}, {2, {3, 0, 0}}, {2, {2, 1, 0}}, {5, chance, 50000}}},
      {"handover/joining", Joining, {0}, {{1, {4, 1, 0}}, {2, {3, 0, 0}}, {7, chance, 50000}}},
  };
}

}  // namespace lockstep::explore
