/* A part of barrier.pml: the steps of collective/local_group.cc and local_communicator.cc. */

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
       agreed = agreed && ASKS(RECORD(other)) == ASKS(RECORD(me));
       other++
    :: else -> break
    od;
    other = 0
  };
  if
  :: !agreed -> Explain(me, epoch)
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
