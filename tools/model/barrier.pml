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

/* ---- The word. Bits 0..5 are its low half, what sleepers compare. ---- */

#define PARKED_BITS 1
#define GENERATION_BITS (3 << 1)
#define POISON_BITS (7 << 3)
#define ARRIVED_BITS (7 << 6)
#define DEPARTED_BITS (7 << 9)
#define EPOCH_BITS (3 << 12)

#define PARKED(w) ((w) & 1)
#define GENERATION(w) (((w) >> 1) & 3)
#define POISON(w) (((w) >> 3) & 7) /* 1 + the culprit */
#define ARRIVED(w) (((w) >> 6) & 7)
#define DEPARTED(w) (((w) >> 9) & 7)
#define EPOCH(w) (((w) >> 12) & 3)

#ifdef BREAK_LOW_HALF_WITHOUT_GENERATION
#define LOW_HALF(w) ((w) & (PARKED_BITS | POISON_BITS))
#else
#define LOW_HALF(w) ((w) & (PARKED_BITS | GENERATION_BITS | POISON_BITS))
#endif

/* What an exchange may write. */
#define WITH_PARKED(w) ((w) | PARKED_BITS)
#define WITH_ARRIVED(w) ((w) + (1 << 6))
#define WITH_DEPARTED(w) ((w) + (1 << 9))
#define WITH_POISON(w, culprit) (((w) & ~(POISON_BITS | PARKED_BITS)) | (((culprit) + 1) << 3))
#define COMPLETED(w) (((w) & ~(PARKED_BITS | GENERATION_BITS | ARRIVED_BITS)) | (((GENERATION(w) + 1) & 3) << 1))
#define RETURNED(w) ((w) & ~DEPARTED_BITS)
#ifdef BREAK_RESET_KEEPS_EPOCH
#define HEALED(w) ((w) & (GENERATION_BITS | DEPARTED_BITS | EPOCH_BITS))
#else
#define HEALED(w) (((w) & (GENERATION_BITS | DEPARTED_BITS)) | (((EPOCH(w) + 1) & 3) << 12))
#endif

short word = (3 << 1); /* the generation wraps at the first meeting */
byte sleepers;         /* the futex's queue, a bit per rank */

/* ---- The group. `me`, `epoch` and `round` are the rank's. ---- */

#define BIT(rank) (1 << (rank))
#define OUTSIDER RANKS /* the culprit that is no rank */

/* Progress::Stage, and Progress::Pack. */
#define kLeft 0
#define kPublished 1
#define kMoved 2
#define PROGRESS(stage) ((epoch << 5) | (round << 2) | (stage))
#define STAGE(progress) ((progress) & 3)
#define HAS_REACHED(progress, stage) ((progress) >> 5 == epoch && \
    ((((progress) >> 2) & 7) > round || \
     ((((progress) >> 2) & 7) == round && (STAGE(progress) == kMoved || STAGE(progress) == (stage)))))
byte progress[6];       /* whoever is no rank has left */

/* LocalGroup::Slot::records. A record tells of which round it is, and whether it asks for something else. */
#ifdef BREAK_ONE_RECORD
#define RECORD(rank) records[rank]
#else
#define RECORD(rank) records[2 * (rank) + (round & 1)]
#endif
#define ROUND ((epoch << 3) | round)
#define ROUND_OF(record) ((record) & 31)
#define ASKS(record) ((record) >> 7)
byte records[2 * RANKS];

byte lent;             /* a bit per rank: its memory belongs to the round, not to its caller */
byte causes[RANKS + 1]; /* LocalGroup::causes_: 1 + the epoch, and in the outsiders' which of them */
bool cause_mutex;      /* held by an outsider; all others hold it for one step */

bool freed, destroying;
byte on_the_way_in;    /* a bit per rank that has begun a call, and has not published it yet */
byte runs_begun;
byte run_epoch;        /* Slot::epoch, as OnRunStart leaves it */
byte tasks;            /* of the last Run, that have not ended */
byte halted;          /* 1 + the rank that has stopped for ever */
byte mismatches_left = MISMATCHES;
byte failures_left = FAILURES;
byte resets_left = RESETS;
byte busy = 1;         /* processes that have not ended; init until it has begun them */

/* Known to the claims alone. */
byte reached[RANKS];   /* the last meeting that each rank has arrived at */
#define MEETING(stage) ((ROUND << 1) | ((stage) == kMoved))
#if RUNS
#define ROUNDS_PER_EPOCH (ROUNDS * RUNS)
#else
#define ROUNDS_PER_EPOCH ROUNDS
#endif
byte verdicts[(RESETS + 1) * ROUNDS_PER_EPOCH]; /* per round, bit 0: somebody got OK; bit 1: an error */
bool excused = DEADLINE; /* something has happened that may fail a round */

#if STOPS
#define OR_STOP :: atomic { halted == 0 -> halted = 1 + me }; goto gone
#else
#define OR_STOP
#endif

#if DESTROY
#define TOUCH() assert(!freed || nothing_touched_after_free)
#else
#define TOUCH() skip
#endif

/* ---- BarrierWord. Who uses it has `seen`, the word as it was seen last, and `exchanged`. ---- */

#ifdef BREAK_SEPARATE_WORDS
/* Each field is a word of its own: an exchange compares and writes only what it changes. */
#define IF_CHANGED(bits, next) (((seen ^ (next)) & (bits)) -> (bits) : 0)
#define COMPARED(next) (IF_CHANGED(PARKED_BITS, next) | IF_CHANGED(GENERATION_BITS, next) | \
    IF_CHANGED(POISON_BITS, next) | IF_CHANGED(ARRIVED_BITS, next) | IF_CHANGED(DEPARTED_BITS, next) | \
    IF_CHANGED(EPOCH_BITS, next))
#define WRITTEN(next) ((word & ~COMPARED(next)) | ((next) & COMPARED(next)))
#elif defined(BREAK_STORE_FOR_EXCHANGE)
#define COMPARED(next) 0
#define WRITTEN(next) (next)
#else
#define COMPARED(next) (~0)
#define WRITTEN(next) (next)
#endif

inline Load() {
  TOUCH();
  seen = word
}

/* compare_exchange_weak. When it fails, `seen` is what is there now; else all that still matters of it is whether somebody
 * is parked, and the rest is forgotten, which saves states. */
inline Exchange(next) {
  TOUCH();
  if
  :: ((word ^ seen) & COMPARED(next)) == 0 -> word = WRITTEN(next); exchanged = true; seen = PARKED(seen)
  :: else -> seen = word; exchanged = false
#if SPURIOUS && !defined(LIVENESS) /* an exchange that fails for ever makes no progress anywhere */
  :: seen = word; exchanged = false
#endif
  fi
}

/* By the address alone: the word may be gone. */
inline UnparkAll() {
#ifdef BREAK_WAKE_ONE
  sleepers = sleepers & (sleepers - 1)
#else
  sleepers = 0
#endif
}

inline TryPoison(culprit) {
  atomic { Exchange(WITH_POISON(seen, culprit)) };
#ifndef BREAK_NO_WAKE_ON_POISON
  if
  :: exchanged && PARKED(seen) -> UnparkAll()
  :: !(exchanged && PARKED(seen))
  OR_STOP
  fi
#endif
}

inline Poison(culprit, its_epoch) {
  atomic { Load() };
  do
  :: EPOCH(seen) == its_epoch && POISON(seen) == 0 ->
     TryPoison(culprit);
     if
     :: exchanged -> break
     :: else
     fi
  :: else -> break
  od
}

/* `Now() < deadline`, and not. */
#if !DEADLINE
#define TIME_IS_LEFT true
#define TIME_IS_UP false
#elif defined(LIVENESS)
#define TIME_IS_LEFT ((over & BIT(me)) == 0)
#define TIME_IS_UP (over & BIT(me))
byte waiting, over; /* a bit per rank: inside Wait, and its deadline has passed */
proctype Time(byte me) {
end:
  do
  :: atomic { (waiting & BIT(me)) && !(over & BIT(me)) -> over = over | BIT(me) }
  od
}
#else
#define TIME_IS_LEFT true
#define TIME_IS_UP true
#endif

/* Says that somebody sleeps, sleeps, and looks again. Without the exchange, `seen` is new already. */
inline Sleep() {
  exchanged = true;
#ifndef BREAK_NO_PARKED_BIT
  if
  :: !PARKED(seen) -> atomic { Exchange(WITH_PARKED(seen)) }
  :: else
  fi;
#endif
  if
  OR_STOP
  :: exchanged ->
#ifdef BREAK_NO_PARKED_BIT
     Park(LOW_HALF(generation << 1));
#else
     Park(LOW_HALF(WITH_PARKED(generation << 1))); /* the round is not over: its generation, and no poison */
#endif
     atomic { Load() }
  :: else
  fi
}

/* The kernel compares and queues in one step. */
inline Park(expected) {
  atomic {
    TOUCH();
    if
#ifdef BREAK_PARK_WITHOUT_COMPARING
    :: true -> sleepers = sleepers | BIT(me)
#endif
    :: LOW_HALF(word) == expected -> sleepers = sleepers | BIT(me)
    :: else
    fi;
    seen = 0
  };
  if
  :: (sleepers & BIT(me)) == 0
#ifndef BREAK_UNTIMED_PARK
  :: TIME_IS_UP -> sleepers = sleepers & ~BIT(me)
#endif
#if SPURIOUS
  :: sleepers = sleepers & ~BIT(me)
#endif
  OR_STOP
  fi
}

/* Of Over: `seen` against the round that this rank has arrived in. */
#define IS_STALE (EPOCH(seen) != epoch)
#ifdef BREAK_POISON_BEFORE_GENERATION
#define IS_POISONED (!IS_STALE && POISON(seen) != 0)
#define IS_COMPLETED (!IS_STALE && POISON(seen) == 0 && GENERATION(seen) != generation)
#else
#define IS_COMPLETED (!IS_STALE && GENERATION(seen) != generation)
#define IS_POISONED (!IS_STALE && GENERATION(seen) == generation && POISON(seen) != 0)
#endif

inline Wait(stage) {
#ifdef LIVENESS
  atomic { waiting = waiting | BIT(me); over = over & ~BIT(me) };
#endif
  atomic { Load() };
  do
  :: IS_STALE -> verdict = kStale; break
  :: IS_COMPLETED -> verdict = kCompleted; break
  :: IS_POISONED -> verdict = kPoisoned; break
  :: else ->
     if
#if PARKS
     :: TIME_IS_LEFT -> Sleep()
#else
     :: atomic { word != seen -> Load() } /* polls that find nothing new change nothing */
#endif
     :: TIME_IS_UP ->
#ifndef BREAK_EXPLAIN_AFTER_POISON
        DescribeMissing(stage);
        Explain(me, epoch);
#endif
        TryPoison(me);
        if
        :: exchanged -> verdict = kPoisoned; break
        :: else
        fi
     OR_STOP
     fi
  od;
#ifdef LIVENESS
  waiting = waiting & ~BIT(me);
#endif
#ifdef BREAK_EXPLAIN_AFTER_POISON
  Explain(me, epoch)
#endif
}

#ifdef BREAK_LAST_COMES_EARLY
#define IS_LAST (ARRIVED(seen) + 2 == RANKS)
#else
#define IS_LAST (ARRIVED(seen) + 1 == RANKS)
#endif

/* `agree` and `explain` are AllAgree, and DescribeMissing or DescribeDeparted with Explain. */
inline Meet(stage) {
  atomic { Load() };
  do
  :: IS_STALE -> verdict = kStale; break
  :: !IS_STALE && POISON(seen) != 0 -> verdict = kPoisoned; break
  :: else ->
     may_arrive = true;
     if
#ifndef BREAK_DEPARTED_UNSEEN
     :: DEPARTED(seen) != 0 -> Explain(me, epoch); may_arrive = false
#endif
     :: DEPARTED(seen) == 0 && IS_LAST && stage == kPublished -> AllAgree()
     :: else
     fi;
     if
     :: !may_arrive ->
        TryPoison(me);
        if
        :: exchanged -> verdict = kPoisoned; break
        :: else
        fi
     :: may_arrive && IS_LAST ->
#ifdef BREAK_WAKE_BEFORE_RELEASE
        if
        :: PARKED(seen) -> UnparkAll()
        :: else
        fi;
#endif
        atomic { Exchange(COMPLETED(seen)); Arrived(stage) };
        if
        :: exchanged ->
#if !defined(BREAK_NO_WAKE_ON_RELEASE) && !defined(BREAK_WAKE_BEFORE_RELEASE)
           if
           :: PARKED(seen) -> UnparkAll()
           :: !PARKED(seen)
           OR_STOP
           fi;
#endif
           verdict = kCompleted;
           break
        :: else
        fi
     :: may_arrive && !IS_LAST ->
        atomic { Exchange(WITH_ARRIVED(seen)); Arrived(stage) };
        if
        :: exchanged -> Wait(stage); break
        :: else
        fi
     OR_STOP
     fi
  od;
  atomic { seen = 0; exchanged = false; may_arrive = false; generation = 0 } /* forgotten, which saves states */
}

/* The word is the one just written. */
inline Arrived(stage) {
  if
  :: exchanged -> generation = GENERATION(word); reached[me] = MEETING(stage)
  :: else
  fi
}
inline Depart() {
  atomic { Load() };
  do
  :: ARRIVED(seen) > 0 && POISON(seen) == 0 ->
     Explain(me, EPOCH(word));
     atomic { Exchange(WITH_POISON(WITH_DEPARTED(seen), me)) };
     if
     :: exchanged ->
#ifndef BREAK_NO_WAKE_ON_DEPART
        if
        :: PARKED(seen) -> UnparkAll()
        :: else
        fi;
#endif
        break
     :: else
     fi
  :: else ->
     atomic { Exchange(WITH_DEPARTED(seen)) };
     if
     :: exchanged -> break
     :: else
     fi
  od
}

inline Return() {
  do
  :: atomic { Exchange(RETURNED(seen)) };
     if
     :: exchanged -> break
     :: else
     fi
  od
}

inline Reset() {
  atomic { Load() };
  do
  :: POISON(seen) != 0 ->
     atomic {
       Exchange(HEALED(seen));
       if
       :: exchanged -> resets_left--; break
       :: else
       fi
     }
  :: else -> break
  od
}

/* ---- LocalGroup ---- */

/* Keeps the diagnosis of `culprit`, unless the group has failed already. */
inline Explain(culprit, its_epoch) {
#if DIAGNOSIS
  atomic {
    !cause_mutex ->
    TOUCH();
    if
    :: POISON(word) == 0 -> causes[culprit] = 1 + (its_epoch)
    :: else
    fi
  }
#else
  skip
#endif
}

/* Sees who has come to this stage, and then reads what they asked for. Here it looks at one rank, any of them. */
inline DescribeMissing(stage) {
#if DIAGNOSIS
  atomic {
    TOUCH();
    do
    :: other < RANKS - 1 -> other++
    :: HAS_REACHED(progress[other], stage) -> break
    :: other == RANKS - 1 -> other = me; break
    od
  };
  d_step {
    assert(ROUND_OF(RECORD(other)) == ROUND || records_hold);
    other = 0
  }
#else
  skip
#endif
}

inline Fail(its_epoch) {
  Explain(me, its_epoch);
  Poison(me, its_epoch)
}

/* `id`, from 1, tells the outsiders apart. */
inline AbortFromOutside(id) {
#ifndef BREAK_ABORT_WITHOUT_MUTEX
  atomic { !cause_mutex -> cause_mutex = true };
#endif
  excused = true;
  if
  :: atomic { POISON(word) == 0 -> its_epoch = EPOCH(word) };
     causes[OUTSIDER] = (id << 4) | (1 + its_epoch);
     Poison(OUTSIDER, its_epoch);
     assert(!exchanged || causes[OUTSIDER] >> 4 == id || diagnosis_stands)
  :: POISON(word) != 0
  fi;
  cause_mutex = false
}

/* The slots one after the other. A rank inside a call that has stopped for ever is waited for in vain. */
inline AwaitAllLeft() {
  do
  :: other < RANKS && STAGE(progress[other]) == kLeft -> other++
  :: other < RANKS && halted == 1 + other && STAGE(progress[other]) != kLeft -> break
  :: other == RANKS -> break
  od
}

/* Without the time-out, but for a rank that has stopped for ever: then its caller is told that its memory is not its own. */
#define IS_MOVING(rank) (progress[rank] == PROGRESS(kPublished))
#define ANY_IS_MOVING \
    (IS_MOVING(0) || IS_MOVING(1) || IS_MOVING(2) || IS_MOVING(3) || IS_MOVING(4) || IS_MOVING(5))
inline AwaitAllMoved() {
  if
  :: !ANY_IS_MOVING
#if STOPS
  :: halted > 0 && IS_MOVING(halted - 1) -> still_moving = true
#endif
  fi
}

/* ---- LocalCommunicator ---- */

/* Writes the record, and lends the memory that it names. */
inline Publish() {
  atomic {
    TOUCH();
    RECORD(me) = ROUND;
    lent = lent | BIT(me);
    if
    :: true
    :: mismatches_left > 0 -> mismatches_left--; excused = true; RECORD(me) = ROUND | (1 << 7)
    fi
  };
  atomic {
    TOUCH();
    progress[me] = PROGRESS(kPublished);
    on_the_way_in = on_the_way_in & ~BIT(me)
  }
}

inline AllAgree() {
#ifndef BREAK_NO_AGREEMENT
  d_step {
    do
    :: other < RANKS ->
       assert(ROUND_OF(RECORD(other)) == ROUND || records_hold);
       may_arrive = may_arrive && ASKS(RECORD(other)) == ASKS(RECORD(me));
       other++
    :: else -> break
    od;
    other = 0
  };
  if
  :: !may_arrive -> Explain(me, epoch)
  :: else
  fi
#else
  skip
#endif
}

/* Reads for as long as the rank is here, so that one look at the end is enough. OnExit says that it has moved. */
inline MoveData() {
  d_step {
    do
    :: other < RANKS ->
       assert(reached[other] >= MEETING(kPublished) || nobody_leaves_early);
       assert(ROUND_OF(RECORD(other)) == ROUND || records_hold);
       assert(ASKS(RECORD(other)) == ASKS(RECORD(me)) || nothing_moves_on_mismatch);
#if MEETINGS == 2 || defined(BREAK_NO_END_MEETING)
       assert((lent & BIT(other)) || inputs_hold);
#endif
       other++
    :: else -> break
    od;
    other = 0;
    progress[me] = PROGRESS(kMoved)
  }
}

/* After a Meet that has not completed. */
inline Failed(stage) {
  knows_failure = true;
  if
#ifdef BREAK_LEAVE_WITHOUT_AWAITING
  :: stage == kMoved && reached[me] == MEETING(kMoved) -> AwaitAllMoved()
#else
  :: stage == kMoved -> AwaitAllMoved()
#endif
  :: else
  fi
}

/* Of RunRound, when this rank's own part of moving fails. */
inline FailMove() {
  failures_left--;
  excused = true;
  knows_failure = true;
  Fail(epoch);
  progress[me] = PROGRESS(kMoved);
#ifndef BREAK_FAILED_MOVE_LEAVES_AT_ONCE
  AwaitAllMoved()
#endif
}

/* The end of Execute: OnExit leaves, and the memory is the caller's again, who may write or free it at once. */
inline Leave() {
  d_step {
    TOUCH();
    progress[me] = PROGRESS(kLeft);
    on_the_way_in = on_the_way_in & ~BIT(me);
    CheckVerdict();
    if
    :: knows_failure
    :: else -> causes[me] = 0 /* an explanation that was not needed must not pass for a later one */
    fi;
    if
    :: still_moving
    :: else -> lent = lent & ~BIT(me)
    fi;
    still_moving = false;
    exchanged = false;
    verdict = kCompleted;
    seen = 0
  }
}

/* Known to the claims alone. */
#define VERDICT verdicts[epoch * ROUNDS_PER_EPOCH + round - 1]
inline CheckVerdict() {
  VERDICT = VERDICT | (knows_failure -> 2 : 1);
  assert(VERDICT != 3 || one_verdict_per_round);
  assert(!knows_failure || excused || no_failure_without_cause);
#if DIAGNOSIS
  if
  /* For a rank that was not counted Reset does not wait. */
  :: knows_failure && verdict == kPoisoned && (EPOCH(word) == epoch || reached[me] >= MEETING(kPublished)) ->
     assert((EPOCH(word) == epoch && POISON(word) != 0 && (causes[POISON(word) - 1] & 15) == 1 + epoch) || diagnosis_stands)
  :: else
  fi;
#endif
#if MEETINGS == 2
  do
  :: !knows_failure && other < RANKS -> assert(reached[other] >= MEETING(kMoved) || nobody_leaves_early); other++
  :: else -> break
  od;
  other = 0
#endif
}

/* One collective, after Enter. */
inline Execute() {
  if
  :: true ->
     Publish();
     Meet(kPublished);
     if
     :: verdict == kCompleted ->
        if
        :: MoveData();
#if MEETINGS == 2
           Meet(kMoved);
           if
           :: verdict != kCompleted -> Failed(kMoved)
           :: else
           fi
        :: failures_left > 0 -> FailMove()
#endif
        OR_STOP
        fi
     :: else -> Failed(kPublished)
     fi
  :: failures_left > 0 -> /* Refuse */
     failures_left--;
     excused = true;
     knows_failure = true;
     Fail(epoch)
  OR_STOP
  fi;
  Leave()
}


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
  bool exchanged, may_arrive, still_moving;
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
