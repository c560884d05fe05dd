/* A part of barrier.pml: the steps of collective/barrier_word.h. */

/* ---- BarrierWord. Who uses it has `seen`, the word as it was seen last, and `exchanged`. ---- */

#ifdef BREAK_SEPARATE_WORDS
/* Each field is a word of its own: an exchange compares and writes only what it changes. */
#define IF_CHANGED(bits, next) (((seen ^ (next)) & (bits)) -> (bits) : 0)
#define COMPARED(next) (IF_CHANGED(PARKED_BITS, next) | IF_CHANGED(GENERATION_BITS, next) | \
    IF_CHANGED(POISON_BITS, next) | IF_CHANGED(DEPARTED_BITS, next) | IF_CHANGED(EPOCH_BITS, next))
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

#ifdef BREAK_DEPARTED_UNSEEN
#define MISSES_DEPARTED false
#else
#define MISSES_DEPARTED (DEPARTED(seen) != 0)
#endif

/* Explain is `explain`, with DescribeMissing or DescribeDeparted before it. */
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
     :: !MISSES_DEPARTED && TIME_IS_LEFT -> Sleep()
#else
     :: atomic { !MISSES_DEPARTED && word != seen -> Load() } /* polls that find nothing new change nothing */
#endif
     :: MISSES_DEPARTED || TIME_IS_UP ->
#ifndef BREAK_EXPLAIN_AFTER_POISON
        if
        :: MISSES_DEPARTED
        :: !MISSES_DEPARTED -> DescribeMissing(stage)
        fi;
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

/* This rank has come last. */
inline Complete(stage) {
  agreed = true;
  if
  :: stage == kPublished -> AllAgree() /* `agree` */
  :: else
  fi;
#ifndef BREAK_COUNT_AFTER_RELEASE
  Expect();
#endif
  atomic { Load() };
  do
  :: IS_STALE -> verdict = kStale; break
  :: IS_COMPLETED -> verdict = kCompleted; break
  :: IS_POISONED -> verdict = kPoisoned; break
  :: else ->
     if
     :: !agreed ->
        TryPoison(me);
        if
        :: exchanged -> verdict = kPoisoned; break
        :: else
        fi
     :: agreed ->
#ifdef BREAK_WAKE_BEFORE_RELEASE
        if
        :: PARKED(seen) -> UnparkAll()
        :: else
        fi;
#endif
        atomic { Exchange(COMPLETED(seen)) };
        if
        :: exchanged ->
#ifdef BREAK_COUNT_AFTER_RELEASE
           Expect();
#endif
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
     OR_STOP
     fi
  od
}

/* All ranks, from the next round on. */
inline Expect() {
  atomic { TOUCH(); missing = RANKS }
}

#ifdef BREAK_LAST_COMES_EARLY
#define IS_LAST (missing == 1)
#else
#define IS_LAST (missing == 0)
#endif

inline Meet(stage) {
  atomic { Load() };
  if
  :: IS_STALE -> verdict = kStale
  :: !IS_STALE && POISON(seen) != 0 -> verdict = kPoisoned
  :: !IS_STALE && POISON(seen) == 0 ->
     generation = GENERATION(seen);
#ifdef BREAK_ARRIVE_BY_STORE
     counted = missing;
     atomic { missing = counted - 1; counted = 0; last = IS_LAST; reached[me] = MEETING(stage) };
#else
     atomic { TOUCH(); missing--; last = IS_LAST; reached[me] = MEETING(stage) };
#endif
     if
     :: last -> Complete(stage)
     :: !last -> Wait(stage)
     OR_STOP
     fi
  OR_STOP
  fi;
  atomic { seen = 0; exchanged = false; agreed = false; last = false; generation = 0 } /* forgotten, which saves states */
}

inline Depart() {
  atomic { Load() };
  do
  :: atomic { Exchange(WITH_DEPARTED(seen)) };
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
#ifndef BREAK_RESET_KEEPS_COUNT
     Expect();
#endif
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
