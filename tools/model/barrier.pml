/* The barrier word and the rounds around it: collective/barrier_word.h, local_communicator.cc, local_group.cc and
 * collective_barrier.cc. README.md beside this file says how it is run, and what it leaves out.
 *
 * Each inline stands for the C++ function of its name. A process does one access to what others share at a time, with
 * whatever it then thinks by itself; between two accesses all others may run. Memory is sequentially consistent. Time is a
 * choice: a deadline may pass at any moment.
 *
 * What may happen, and how often (-D):
 *   RANKS        up to 6
 *   ROUNDS       rounds that a rank wants, in each Run and after each Reset
 *   MEETINGS     2: everyone reads everyone's input between two meetings (CPU). 1: there is no second meeting, and what is
 *                read after the first are the records (kBarrier, and the peers' push between GPUs)
 *   DEADLINE     0: no wait ever runs out, so that a forgotten wake is a deadlock
 *   PARKS        0: who waits polls and never sleeps, which takes far fewer states
 *   STOPS        1: one rank may stop for ever, before anything that others see. Not with ABORTS or DESTROY
 *   MISMATCHES   calls that ask for something else than the others
 *   FAILURES     calls that a rank refuses, or that fail while it moves data
 *   ABORTS       threads that are no ranks, each of which aborts once
 *   RESETS       times that the group is healed
 *   RUNS         0: threads of the host's own. Else so many Runs of an executor, whose tasks may end early
 *   DESTROY      1: the group is destroyed while ranks wait
 *   SPURIOUS     1: sleepers wake, and exchanges fail, for no reason
 *   DIAGNOSIS    0: a failure's cause is not kept, which takes a third of the states
 *   LIVENESS     claims that every process ends, when time passes by itself
 *
 * Whatever is broken on purpose stands under a BREAK_... at its place. */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef MEETINGS
#define MEETINGS 2
#endif
#ifndef DEADLINE
#define DEADLINE 1
#endif
#ifndef PARKS
#define PARKS 1
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef MISMATCHES
#define MISMATCHES 0
#endif
#ifndef FAILURES
#define FAILURES 0
#endif
#ifndef ABORTS
#define ABORTS 0
#endif
#ifndef RESETS
#define RESETS 0
#endif
#ifndef RUNS
#define RUNS 0
#endif
#ifndef DESTROY
#define DESTROY 0
#endif
#ifndef SPURIOUS
#define SPURIOUS 0
#endif
#ifndef DIAGNOSIS
#define DIAGNOSIS 1
#endif

/* What is claimed. Never true: they stand in the assertions, so that the one that fails is named. */
hidden byte nobody_leaves_early, one_verdict_per_round, no_failure_without_cause, records_hold, inputs_hold,
            nothing_moves_on_mismatch, diagnosis_stands, nothing_touched_after_free;

#define kCompleted 0 /* BarrierWord::Verdict */
#define kPoisoned 1
#define kStale 2

#include "barrier_state.pml"
#include "barrier_word.pml"
#include "barrier_rounds.pml"

/* ---- The processes ---- */

#if RESETS || defined(LIVENESS)
#define End() busy--
#else
#define End() skip /* nobody asks */
#endif

/* What the caller of a rank does: its rounds, again after a Reset, and no more once it has an error that nobody heals. */
inline Task() {
  do
  :: atomic {
       round < goal && !destroying ->
       round++;
       on_the_way_in = on_the_way_in | BIT(me)
     };
     Execute();
     if
     :: !knows_failure
#if RESETS
     /* Enter: a rank that knows of the failure gets an error from every call until the group is healed. */
     :: atomic {
          knows_failure && POISON(word) == 0 ->
          knows_failure = false;
          round = (EPOCH(word) == epoch -> round : 0);
          epoch = EPOCH(word);
          goal = round + ROUNDS
        }
     :: knows_failure && resets_left == 0 && POISON(word) != 0 -> break
#endif
#if RUNS || !RESETS
     :: knows_failure -> break
#endif
     fi
#if RUNS
  :: round < goal -> excused = true; break
#endif
  :: round == goal || destroying -> break
  od
}

/* LocalGroup's: the task has returned, or thrown. */
inline OnTaskEnd() {
  if
  :: round == goal && !knows_failure
  :: round < goal && !knows_failure
  :: round < goal || knows_failure -> its_epoch = EPOCH(word); Fail(its_epoch)
  fi;
  Depart();
  tasks--
}

proctype Rank(byte me) {
  byte epoch, round;      /* LocalCommunicator's */
  bool knows_failure;     /* Slot's */
  byte goal;              /* the last round that its caller wants */
  short seen;
  bool exchanged, last, agreed, still_moving;
#ifdef BREAK_ARRIVE_BY_STORE
  byte counted;
#endif
  byte generation, verdict, other, its_epoch, my_run;
#if RUNS
  do
  :: my_run < RUNS ->
     atomic {
       runs_begun > my_run ->
       my_run++;
       knows_failure = false;
       round = (run_epoch == epoch -> round : 0);
       epoch = run_epoch;
       goal = round + ROUNDS
     };
     Task();
     OnTaskEnd()
  :: else -> break
  od
#else
  goal = ROUNDS;
  Task()
#endif
gone:
  End()
}

#if ABORTS
proctype Outsider(byte id) {
  short seen;
  bool exchanged;
  byte its_epoch;
  AbortFromOutside(id);
  End()
}
#endif

#if RESETS
proctype Healer() {
  short seen;
  bool exchanged;
  byte other;
  do
  :: resets_left > 0 && POISON(word) != 0 ->
#ifndef BREAK_RESET_WITHOUT_AWAITING
     AwaitAllLeft();
#else
     other = RANKS;
#endif
     if
     :: other == RANKS -> Reset()
     :: else -> resets_left = 0
     fi;
     other = 0
  :: resets_left == 0 || busy == 1 -> break
  od;
  End()
}
#endif

#if RUNS
/* Executor::Run: OnRunStart, the hand-over, and AwaitDone. */
proctype Executor() {
  short seen;
  bool exchanged;
  do
  :: runs_begun < RUNS ->
     atomic { Load(); run_epoch = EPOCH(seen) };
#ifndef BREAK_NO_RETURN
     Return();
#endif
     atomic { tasks = RANKS; runs_begun++ };
     tasks == 0
  :: else -> break
  od;
  End()
}
#endif

#if DESTROY
/* ~CollectiveBarrier, while no rank is in a call that it has not published, and when none will begin another. */
proctype Destroyer() {
  short seen;
  bool exchanged;
  byte other, its_epoch;
  atomic {
#ifndef BREAK_DESTROY_BEFORE_PUBLISHED
    on_the_way_in == 0 ->
#endif
    destroying = true
  };
  AbortFromOutside(7);
#ifndef BREAK_DESTROY_WITHOUT_AWAITING
  AwaitAllLeft();
#endif
  freed = true;
  End()
}
#endif

init {
  byte i;
  atomic {
    busy = RANKS + ABORTS + (RESETS > 0) + (RUNS > 0) + DESTROY;
    for (i : 0 .. RANKS - 1) {
      run Rank(i)
#if DEADLINE && defined(LIVENESS)
      ; run Time(i)
#endif
    }
#if ABORTS
    for (i : 1 .. ABORTS) {
      run Outsider(i)
    }
#endif
#if RESETS
    run Healer();
#endif
#if RUNS
    run Executor();
#endif
#if DESTROY
    run Destroyer();
#endif
    i = 0
  }
}

#ifdef LIVENESS
ltl every_process_ends { <> (busy == 0) }
#endif
