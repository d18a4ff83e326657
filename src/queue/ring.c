/*
 * queue/ring.c
 *	  The next tasks for each capability set, in shared memory: one claimer looks
 *	  into the index and leaves what it found to those who come after it.
 *
 * Claimers that each search for the head of the queue meet on it and walk over
 * what the others are taking. Here each takes an entry of its own. An entry is a
 * hint: the claimer that takes it checks the row, and rows that are not in the ring are
 * found by the next look into the index, so an entry may be lost. Two things are
 * kept exact:
 *
 * - the order: a row that becomes claimable, or claimable again, before the last
 *   entry makes the ring stale (queue_ring_disturb), and it is filled anew;
 * - emptiness: a ring says that nothing is claimable only after a look that saw
 *   nothing in progress either, and until the next disturbance.
 *
 * The right to fill a ring is a flag, not a lock, as a fill reads tables: the others
 * wait for its end at a condition variable, can be cancelled there, and after a
 * while look for themselves. The number of the fill is kept with the flag, so that
 * a claimer whose ring went to another capability set meanwhile leaves nothing there.
 * A claimer that fails gives the right up: see fill_ring() in queue/ready.c.
 */
#include "postgres.h"

#include "base/guc.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "queue/ring.h"
#include "storage/condition_variable.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define FIRST_FILL 8
#define WARM_WORKERS 4096

/* Milliseconds that a claim waits for others' fills, all together. */
#define FILL_PATIENCE 1000

/* Prepared transactions that are watched at a time. */
#define MAX_PREPARED 64

typedef struct RingSlot
{
	LWLock *lock; /* guards what follows, up to the spinlock */
	int64 capset;
	uint64 fill; /* the number of the fill under way; 0: none is */
	bool empty;	 /* nothing was claimable at the last look */
	int want;	 /* entries that the next fill should find */
	int filled;	 /* entries that the last fill found */
	int missed;	 /* of those, whose rows were gone */
	int first;
	int n;
	int n_passed; /* of what was left when the last fill began */
	RingEntry passed[MAX_LOCALITY_WINDOW];
	RingEntry entries[RING_SIZE];

	slock_t mutex; /* guards what follows */
	QueueId queue; /* changes under the lock as well */
	bool stale;
	QueueKey last;			/* what comes before it disturbs */
	QueueKey put_meanwhile; /* the first key that was put since the last fill began */

	ConditionVariable filled_anew; /* a fill ended */
} RingSlot;

/* A prepared transaction that put or took rows, from this key on. */
typedef struct Prepared
{
	TransactionId xid;
	QueueId queue;
	QueueKey first;
} Prepared;

typedef struct RingState
{
	pg_atomic_uint32 n_rings; /* places ever used */
	pg_atomic_uint64 fills;	  /* ever begun */
	pg_atomic_uint64 warm[WARM_WORKERS];

	LWLock *prepared_lock; /* guards what follows; the number may be read without it */
	int n_prepared;
	Prepared prepared[MAX_PREPARED];
} RingState;

static RingState *state = NULL;
static RingSlot *rings = NULL;

/* Shared memory that is needed. */
Size
queue_ring_size(void)
{
	return add_size(MAXALIGN(sizeof(RingState)),
					mul_size(guc_max_capability_sets, sizeof(RingSlot)));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. There is a lock for each ring. */
void
queue_ring_startup(LWLock *prepared_lock, LWLockPadded *locks)
{
	bool found;

	state = ShmemInitStruct("gpu_orch rings", queue_ring_size(), &found);
	rings = (RingSlot *) ((char *) state + MAXALIGN(sizeof(RingState)));
	if (found)
		return;
	memset(state, 0, queue_ring_size());
	state->prepared_lock = prepared_lock;
	pg_atomic_init_u32(&state->n_rings, 0);
	pg_atomic_init_u64(&state->fills, 0);
	for (int i = 0; i < WARM_WORKERS; i++)
		pg_atomic_init_u64(&state->warm[i], 0);
	for (int i = 0; i < guc_max_capability_sets; i++)
	{
		rings[i].lock = &locks[i].lock;
		SpinLockInit(&rings[i].mutex);
		ConditionVariableInit(&rings[i].filled_anew);
	}
}

/* Begin to claim from the ring of a capability set. */
void
queue_ring_init(Ring *ring, QueueId queue, int64 capset)
{
	ring->set = (CapabilityPlace){ queue, capset, -1 };
	ring->patience = FILL_PATIENCE;
}

static bool
is_ring(const RingSlot *slot, const Ring *ring)
{
	return slot->capset == ring->set.capset && queue_same(slot->queue, ring->set.queue);
}

/*
 * Lock the ring of a capability set: find its place if that is not known, and make
 * the ring anew where another set had it. False, and not locked, when the place went
 * to another set since the caller last knew it; then ask again.
 */
static bool
lock_ring(Ring *ring, RingSlot **locked)
{
	bool entered = ring->set.index < 0;
	RingSlot *slot;

	if (entered)
		queue_places_enter_set(&ring->set);
	slot = &rings[ring->set.index];
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	if (!is_ring(slot, ring))
	{
		if (!entered)
		{
			LWLockRelease(slot->lock);
			ring->set.index = -1;
			return false;
		}
		slot->capset = ring->set.capset;
		slot->fill = 0;
		slot->empty = false;
		slot->want = FIRST_FILL;
		slot->n = 0;
		SpinLockAcquire(&slot->mutex);
		slot->queue = ring->set.queue;
		slot->stale = true;
		SpinLockRelease(&slot->mutex);
		while (pg_atomic_read_u32(&state->n_rings) <= (uint32) ring->set.index)
		{
			uint32 n = pg_atomic_read_u32(&state->n_rings);

			(void) pg_atomic_compare_exchange_u32(&state->n_rings, &n, ring->set.index + 1);
		}
		/* Those who wait for a fill of the set that had the place must look where theirs is. */
		ConditionVariableBroadcast(&slot->filled_anew);
	}
	*locked = slot;
	return true;
}

/*
 * Watch a transaction that is being prepared: it ends in another session, or none,
 * and no callback tells. When it has ended, rings that reach beyond its first row
 * look again. One too many is not watched; then its rows come after what is in the
 * rings.
 */
void
queue_ring_watch(QueueId queue, const QueueKey *first, TransactionId xid)
{
	LWLockAcquire(state->prepared_lock, LW_EXCLUSIVE);
	if (state->n_prepared < MAX_PREPARED)
		state->prepared[state->n_prepared++] = (Prepared){ xid, queue, *first };
	LWLockRelease(state->prepared_lock);
}

/* Act on the prepared transactions that have ended. */
static void
look_at_prepared(void)
{
	Prepared prepared[MAX_PREPARED];
	int n;

	LWLockAcquire(state->prepared_lock, LW_SHARED);
	n = state->n_prepared;
	memcpy(prepared, state->prepared, n * sizeof(Prepared));
	LWLockRelease(state->prepared_lock);
	for (int i = 0; i < n; i++)
	{
		if (TransactionIdIsInProgress(prepared[i].xid))
			continue;
		queue_ring_disturb(prepared[i].queue, &prepared[i].first);
		LWLockAcquire(state->prepared_lock, LW_EXCLUSIVE);
		for (int j = state->n_prepared - 1; j >= 0; j--)
			if (state->prepared[j].xid == prepared[i].xid &&
				state->prepared[j].first.task_id == prepared[i].first.task_id)
				state->prepared[j] = state->prepared[--state->n_prepared];
		LWLockRelease(state->prepared_lock);
	}
}

/*
 * The entry to take, as an offset: the first one, or within gpu_orch.locality_window
 * one of the same rank that asks for the model which the worker holds warm. All in
 * front of it count that they were passed, the first one most often; when that was
 * as often as the window is long, it goes.
 */
static int
choose(RingSlot *slot, uint32 model)
{
	RingEntry *first = &slot->entries[slot->first];

	if (model == 0 || guc_locality_window == 0 || first->model == model ||
		first->passed >= guc_locality_window)
		return 0;
	for (int i = 1; i < slot->n && i < guc_locality_window; i++)
	{
		RingEntry *entry = &slot->entries[slot->first + i];

		if (entry->key.rank != first->key.rank)
			return 0;
		if (entry->model == model)
		{
			for (int j = 0; j < i; j++)
				first[j].passed++;
			return i;
		}
	}
	return 0;
}

/*
 * How many rows the next fill should find, now that the ring has run out. A row that
 * is gone costs far less than a look; but where most are, claimers of other
 * capability sets take the same rows, and fewer should be looked for.
 */
static int
next_want(const RingSlot *slot)
{
	if (slot->missed > slot->filled / 2)
		return Max(FIRST_FILL, slot->want / 2);
	return Min(RING_SIZE, slot->want * 2);
}

/*
 * Take an entry; model is the one that the claimer holds warm, or 0. An entry that
 * was taken is nobody else's, unless a fill finds its row again.
 */
RingAnswer
queue_ring_pop(Ring *ring, uint32 model, RingEntry *entry)
{
	RingAnswer answer = RING_FILL;
	RingSlot *slot;

	if (state->n_prepared > 0)
		look_at_prepared();
	if (!lock_ring(ring, &slot))
		return RING_FILL;
	if (!slot->stale && slot->n > 0)
	{
		int chosen = choose(slot, model);

		*entry = slot->entries[slot->first + chosen];
		for (int i = chosen; i > 0; i--)
			slot->entries[slot->first + i] = slot->entries[slot->first + i - 1];
		slot->first++;
		slot->n--;
		if (slot->n == 0)
			slot->want = next_want(slot);
		answer = RING_TOOK;
	}
	else if (!slot->stale && slot->empty)
		answer = RING_EMPTY;
	LWLockRelease(slot->lock);
	return answer;
}

/* Say that the row of an entry was gone. */
void
queue_ring_missed(Ring *ring)
{
	RingSlot *slot;

	if (!lock_ring(ring, &slot))
		return;
	slot->missed++;
	LWLockRelease(slot->lock);
}

/* Begin a fill, unless the ring needs none or somebody else is at it. */
static FillAnswer
try_fill(Ring *ring, int *want)
{
	RingSlot *slot;
	FillAnswer answer = FILL_BEGUN;

	if (!lock_ring(ring, &slot))
		return FILL_OTHERS;
	if (slot->fill != 0)
		answer = FILL_BUSY;
	else if (!slot->stale && (slot->n > 0 || slot->empty))
		answer = FILL_OTHERS;
	else
	{
		/* What was left when the ring became stale was too much. */
		if (slot->stale && slot->n > slot->want / 2 && slot->want > FIRST_FILL)
			slot->want /= 2;
		slot->empty = false;
		slot->n_passed = 0;
		for (int i = 0; i < slot->n && i < MAX_LOCALITY_WINDOW; i++)
			if (slot->entries[slot->first + i].passed > 0)
				slot->passed[slot->n_passed++] = slot->entries[slot->first + i];
		slot->first = slot->n = 0;
		SpinLockAcquire(&slot->mutex);
		slot->stale = false;
		slot->last = QUEUE_KEY_FIRST;
		slot->put_meanwhile = QUEUE_KEY_LAST;
		SpinLockRelease(&slot->mutex);
		slot->fill = ring->fill = pg_atomic_add_fetch_u64(&state->fills, 1);
		ring->filling = ring->set.index;
		*want = Max(*want, slot->want);
	}
	LWLockRelease(slot->lock);
	return answer;
}

/*
 * Begin to look into the index for a ring's capability set, alone; *want is the
 * number of rows to find. To be ended by queue_ring_end_fill() or
 * queue_ring_abandon_fill(), also after an error. Waits while somebody else fills
 * the ring, but no longer than the claim's patience lasts; can be cancelled.
 */
FillAnswer
queue_ring_begin_fill(Ring *ring, int *want)
{
	FillAnswer answer;
	instr_time begin;
	instr_time now;
	bool slept = false;

	while ((answer = try_fill(ring, want)) == FILL_BUSY && ring->patience > 0)
	{
		INSTR_TIME_SET_CURRENT(begin);
		(void) ConditionVariableTimedSleep(&rings[ring->set.index].filled_anew, ring->patience,
										   PG_WAIT_EXTENSION);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, begin);
		ring->patience -= (long) INSTR_TIME_GET_MILLISEC(now);
		slept = true;
	}
	if (slept)
		ConditionVariableCancelSleep();
	return answer;
}

/* Those found again keep the count of how often they were passed; both are in order. */
static void
remember_passed(RingSlot *slot)
{
	int at = 0;

	for (int i = 0; i < slot->n && at < slot->n_passed; i++)
	{
		while (at < slot->n_passed &&
			   queue_key_before(&slot->passed[at].key, &slot->entries[i].key))
			at++;
		if (at < slot->n_passed && slot->passed[at].key.task_id == slot->entries[i].key.task_id)
			slot->entries[i].passed = slot->passed[at].passed;
	}
}

/*
 * Leave what was found to others, in order. all: there is nothing claimable beyond
 * it; settled: nothing in progress was seen either. False when the place went to
 * another capability set meanwhile, so that nothing was left there.
 */
bool
queue_ring_end_fill(Ring *ring, const RingEntry *entries, int n, bool all, bool settled)
{
	RingSlot *slot = &rings[ring->filling];
	bool ours;

	Assert(n <= RING_SIZE);
	Assert(n > 0 || all);
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	ours = slot->fill == ring->fill;
	if (ours)
	{
		memcpy(slot->entries, entries, n * sizeof(RingEntry));
		slot->first = slot->missed = 0;
		slot->n = slot->filled = n;
		remember_passed(slot);
		slot->empty = n == 0 && all && settled;
		SpinLockAcquire(&slot->mutex);
		slot->last = all ? QUEUE_KEY_LAST : entries[n - 1].key;
		slot->stale = queue_key_before(&slot->put_meanwhile, &slot->last);
		SpinLockRelease(&slot->mutex);
		slot->fill = 0;
	}
	LWLockRelease(slot->lock);
	ConditionVariableBroadcast(&slot->filled_anew);
	return ours;
}

/* Stop looking without a result. Of no effect when the fill has ended. */
void
queue_ring_abandon_fill(Ring *ring)
{
	RingSlot *slot = &rings[ring->filling];

	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	if (slot->fill == ring->fill)
	{
		slot->fill = 0;
		SpinLockAcquire(&slot->mutex);
		slot->stale = true;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(slot->lock);
	ConditionVariableBroadcast(&slot->filled_anew);
}

/* A row became claimable at a key: rings that reach beyond it must look again. */
void
queue_ring_disturb(QueueId queue, const QueueKey *key)
{
	int n = (int) pg_atomic_read_u32(&state->n_rings);

	for (int i = 0; i < n; i++)
	{
		RingSlot *slot = &rings[i];

		SpinLockAcquire(&slot->mutex);
		if (queue_same(slot->queue, queue))
		{
			if (queue_key_before(key, &slot->last))
				slot->stale = true;
			if (queue_key_before(key, &slot->put_meanwhile))
				slot->put_meanwhile = *key;
		}
		SpinLockRelease(&slot->mutex);
	}
}

/* The model that a worker's last task asked for, 0 if that is not known. */
uint32
queue_ring_warm_model(int64 worker)
{
	uint64 warm = pg_atomic_read_u64(&state->warm[worker % WARM_WORKERS]);

	return warm >> 32 == (uint32) worker ? (uint32) warm : 0;
}

/* Remember the model that a worker's last task asked for. */
void
queue_ring_set_warm_model(int64 worker, uint32 model)
{
	if (model != 0)
		pg_atomic_write_u64(&state->warm[worker % WARM_WORKERS],
							(uint64) (uint32) worker << 32 | model);
}
