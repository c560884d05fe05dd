/* How the executor hands work to its threads: runtime/handover.h, and Executor::Run, RankThread, ReplaceEndedThreads and
 * ~Executor of runtime/executor.cc. README.md beside this file says how it is run, and what it leaves out.
 *
 * Each inline stands for the C++ function of its name. A process does one access to what others share at a time, with
 * whatever it then thinks by itself; between two accesses all others may run. Memory is sequentially consistent.
 *
 * What may happen, and how often (-D):
 *   RANKS     the threads
 *   PIECES    pieces of work, one after the other
 *   NAP       1: sleepers look again after a while, or wake for no reason. 0: a forgotten wake is a deadlock
 *   ENDS      threads that end inside their task, and are replaced before the next piece
 *   JOIN      1: the threads are stopped and joined before the memory goes (~Executor). 0: they go by themselves after the
 *             last piece, and the memory goes as soon as AwaitDone returns
 *   LIVENESS  claims that every process ends
 *
 * Whatever is broken on purpose stands under a BREAK_... at its place. */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef PIECES
#define PIECES 2
#endif
#ifndef NAP
#define NAP 0
#endif
#ifndef ENDS
#define ENDS 0
#endif
#ifndef JOIN
#define JOIN 1
#endif

/* What is claimed. Never true: they stand in the assertions, so that the one that fails is named. */
hidden byte each_piece_once, all_done, task_is_there, nothing_touched_after_free;

/* Both words: whether somebody sleeps, and a count. Sleepers compare all of it. */
#define PARKED(w) ((w) & 1)
#define COUNT(w) (((w) >> 1) & 7)

byte work = (6 << 1);    /* the count wraps at the second piece */
byte pending;
byte sleepers, caller_sleeps; /* the futexes' queues; a bit per thread, and the caller */

byte task;               /* 0: none, and its memory is the caller's again */
byte done[RANKS];        /* the last piece that each rank has done */
bool stopping, freed;
byte thread_ended, alive; /* a bit per rank */
byte ends_left = ENDS;
byte busy = 1;           /* processes that have not ended; init until it has begun them */

#define BIT(rank) (1 << (rank))
#define TOUCH() assert(!freed || nothing_touched_after_free)

/* ---- Handover. Who uses it has `seen`, the word as it was seen last, and `exchanged`. ---- */

/* compare_exchange_weak */
inline Exchange(shared, next) {
  atomic {
    TOUCH();
    if
    :: shared == seen -> shared = (next); exchanged = true
    :: else -> seen = shared; exchanged = false
    fi
  }
}

/* `ready` is of `seen`; `self` is the bit of this process in `queue`. */
inline Await(shared, queue, self, ready) {
  atomic { TOUCH(); seen = shared };
  do
  :: ready -> break
  :: else ->
     exchanged = true;
#ifndef BREAK_NO_PARKED_BIT
     if
     :: !PARKED(seen) -> Exchange(shared, seen | 1)
     :: else
     fi;
     if
     :: exchanged -> seen = seen | 1
     :: else
     fi;
#endif
     if
     :: exchanged -> Park(shared, queue, self); atomic { TOUCH(); seen = shared }
     :: else
     fi
  od
}

/* The kernel compares and queues in one step. */
inline Park(shared, queue, self) {
  atomic {
    TOUCH();
    if
    :: shared == seen -> queue = queue | (self)
    :: else
    fi;
    seen = 0
  };
  if
  :: (queue & (self)) == 0
#if NAP
  :: queue = queue & ~(self)
#endif
  fi
}

inline StorePending(num_threads) {
  atomic { TOUCH(); pending = (num_threads) << 1 }
}

inline Start(num_threads) {
#ifndef BREAK_PENDING_AFTER_WORK
  StorePending(num_threads);
#endif
  atomic { TOUCH(); seen = work };
  do
  :: true ->
#ifdef BREAK_STORE_FOR_EXCHANGE
     atomic { work = ((COUNT(seen) + 1) & 7) << 1; exchanged = true };
#else
     Exchange(work, ((COUNT(seen) + 1) & 7) << 1);
#endif
     if
     :: exchanged -> break
     :: else
     fi
  od;
#ifdef BREAK_PENDING_AFTER_WORK
  StorePending(num_threads);
#endif
#ifndef BREAK_NO_WAKE_IN_START
  if
  :: PARKED(seen) -> sleepers = 0
  :: else
  fi
#endif
}

inline AwaitWork() {
  Await(work, sleepers, BIT(me), COUNT(seen) != last);
  atomic { last = COUNT(seen); seen = 0; exchanged = false }
}

/* fetch_sub. What is woken is an address: the object may be gone. */
#define IS_LAST_AND_AWAITED (COUNT(pending) == 1 && PARKED(pending))
inline Finish() {
#ifdef BREAK_LOAD_AND_STORE
  atomic { TOUCH(); seen = pending };
  atomic { TOUCH(); wakes = IS_LAST_AND_AWAITED; pending = seen - 2; seen = 0 };
#elif defined(BREAK_FINISH_LOOKS_AGAIN)
  atomic { TOUCH(); pending = pending - 2 };
  atomic { TOUCH(); wakes = COUNT(pending) == 0 && PARKED(pending) };
#else
  atomic { TOUCH(); wakes = IS_LAST_AND_AWAITED; pending = pending - 2 };
#endif
  if
#ifndef BREAK_NO_WAKE_IN_FINISH
  :: wakes -> caller_sleeps = 0
#endif
  :: else
  fi;
  wakes = false
}

inline AwaitDone() {
  Await(pending, caller_sleeps, 1, COUNT(seen) == 0)
}

/* ---- The executor ---- */

/* RankThread. `last` is `current()` as the caller saw it when it started the thread. */
proctype Thread(byte me; byte last) {
  byte seen;
  bool exchanged, wakes;
  do
  :: AwaitWork();
     if
     :: stopping && JOIN -> break
     :: else
     fi;
     /* RunTask: what the caller wrote is there, for as long as the task takes. */
     d_step {
       assert(task != 0 || task_is_there);
       assert(task == done[me] + 1 || each_piece_once);
       done[me] = task
     };
     /* TaskEnd */
     if
     :: true
     :: atomic { ends_left > 0 -> ends_left--; thread_ended = thread_ended | BIT(me) }
     fi;
     Finish();
     if
     :: (thread_ended & BIT(me)) || done[me] == PIECES && !JOIN -> break
     :: else
     fi
  od;
  atomic { alive = alive & ~BIT(me); busy-- }
}

inline Join(rank) {
  (alive & BIT(rank)) == 0
}

inline StartThread(rank) {
  atomic {
    TOUCH();
    thread_ended = thread_ended & ~BIT(rank);
    alive = alive | BIT(rank);
    busy++;
#ifdef BREAK_REPLACED_THREAD_FORGETS
    run Thread(rank, 6)
#else
    run Thread(rank, COUNT(work))
#endif
  }
}

inline ReplaceEndedThreads() {
  do
  :: rank < RANKS && (thread_ended & BIT(rank)) -> Join(rank); StartThread(rank); rank++
  :: rank < RANKS && !(thread_ended & BIT(rank)) -> rank++
  :: rank == RANKS -> break
  od;
  rank = 0
}

inline Run() {
  ReplaceEndedThreads();
  task = piece;
  Start(RANKS);
#ifndef BREAK_RETURN_BEFORE_DONE
  AwaitDone();
#endif
  atomic {
    do
    :: rank < RANKS -> assert(done[rank] == piece || all_done); rank++
    :: else -> break
    od;
    rank = 0;
    task = 0
  }
}

/* Who owns the executor. */
proctype Caller() {
  byte seen, rank;
  bool exchanged;
  byte piece = 1;
  do
  :: piece <= PIECES -> Run(); piece++
  :: else -> break
  od;
#if JOIN
  AwaitDone();
  stopping = true;
  Start(0);
#ifndef BREAK_NO_JOIN
  do
  :: rank < RANKS -> Join(rank); rank++
  :: else -> break
  od;
#endif
#endif
  freed = true;
  busy--
}

init {
  byte rank;
  atomic {
    do
    :: rank < RANKS -> StartThread(rank); rank++
    :: else -> break
    od;
    run Caller() /* in place of init */
  }
}

#ifdef LIVENESS
ltl every_process_ends { <> (busy == 0) }
#endif
