/* A part of barrier.pml: what the ranks share, the word and the group around it. */

/* ---- The word. Bits 0..5 are its low half, what sleepers compare. ---- */

#define PARKED_BITS 1
#define GENERATION_BITS (3 << 1)
#define POISON_BITS (7 << 3)
#define DEPARTED_BITS (7 << 6)
#define EPOCH_BITS (3 << 9)

#define PARKED(w) ((w) & 1)
#define GENERATION(w) (((w) >> 1) & 3)
#define POISON(w) (((w) >> 3) & 7) /* 1 + the culprit */
#define DEPARTED(w) (((w) >> 6) & 7)
#define EPOCH(w) (((w) >> 9) & 3)

#ifdef BREAK_LOW_HALF_WITHOUT_GENERATION
#define LOW_HALF(w) ((w) & (PARKED_BITS | POISON_BITS))
#else
#define LOW_HALF(w) ((w) & (PARKED_BITS | GENERATION_BITS | POISON_BITS))
#endif

/* What an exchange may write. */
#define WITH_PARKED(w) ((w) | PARKED_BITS)
#define WITH_DEPARTED(w) (((w) & ~PARKED_BITS) + (1 << 6))
#define WITH_POISON(w, culprit) (((w) & ~(POISON_BITS | PARKED_BITS)) | (((culprit) + 1) << 3))
#define COMPLETED(w) (((w) & ~(PARKED_BITS | GENERATION_BITS)) | (((GENERATION(w) + 1) & 3) << 1))
#define RETURNED(w) ((w) & ~DEPARTED_BITS)
#ifdef BREAK_RESET_KEEPS_EPOCH
#define HEALED(w) ((w) & (GENERATION_BITS | DEPARTED_BITS | EPOCH_BITS))
#else
#define HEALED(w) (((w) & (GENERATION_BITS | DEPARTED_BITS)) | (((EPOCH(w) + 1) & 3) << 9))
#endif

short word = (3 << 1); /* the generation wraps at the first meeting */
byte missing = RANKS;  /* ranks that have not arrived in the round at hand, beside the word */
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
