/*
 * queue/ring.c
 *	  The next tasks for each capability set, in shared memory: one claimer looks
 *	  into the index and leaves what it found to those who come after it.
 *
 * Claimers that each search for the head of the queue meet on it and walk over
 * what the others are taking. Here each takes an entry of its own. An entry is a
 * hint: whoever takes it checks the row, and rows that are not in the ring are
 * found by the next look into the index, so an entry may be lost. Two things are
 * kept exact:
 *
 * - the order: a row that becomes claimable, or claimable again, before the last
 *   entry makes the ring stale (queue_ring_disturb), and it is filled anew;
 * - emptiness: a ring says that nothing is claimable only after a look that saw
 *   nothing in progress either, and until the next disturbance.
 *
 * Whether a capability set meets a shape is kept here as well, for as long as both
 * have their places. Both are named by digests, so a verdict never goes stale.
 */
#include "postgres.h"

#include "base/guc.h"
#include "port/atomics.h"
#include "queue/ring.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define FIRST_FILL 8
#define WARM_WORKERS 4096

/* Prepared transactions that are watched at a time. */
#define MAX_PREPARED 64

typedef struct RingKey
{
	QueueId queue;
	int64 capset;
} RingKey;

typedef struct RingSlot
{
	RingKey key;	   /* changes under the lock and both of the below */
	LWLock *fill_lock; /* held by the one that looks into the index */
	pg_atomic_uint64 used_at;

	slock_t mutex; /* guards what follows */
	bool stale;
	bool empty;				/* nothing was claimable at the last look */
	QueueKey last;			/* what comes before it disturbs */
	QueueKey put_meanwhile; /* the first key that was put since the last fill began */
	int want;				/* entries that the next fill should find */
	int filled;				/* entries that the last fill found */
	int missed;				/* of those, whose rows were gone */
	int first;
	int n;
	int n_passed; /* of what was left when the last fill began */
	RingEntry passed[MAX_LOCALITY_WINDOW];
	RingEntry entries[RING_SIZE];
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
	LWLock *lock; /* queue_bound's: places, and verdicts */
	int n_rings;
	pg_atomic_uint64 clock;
	pg_atomic_uint64 warm[WARM_WORKERS];
	slock_t prepared_mutex; /* guards what follows */
	int n_prepared;
	Prepared prepared[MAX_PREPARED];
} RingState;

static RingState *state = NULL;
static RingSlot *rings = NULL;
static uint8 *verdicts = NULL; /* two bits for each ring and shape */

static Size
verdict_bytes(void)
{
	return (guc_max_shapes + 3) / 4;
}

static Size
rings_size(void)
{
	return mul_size(guc_max_capability_sets, sizeof(RingSlot));
}

/* Shared memory that is needed. */
Size
queue_ring_size(void)
{
	Size size = add_size(MAXALIGN(sizeof(RingState)), MAXALIGN(rings_size()));

	return add_size(size, MAXALIGN(mul_size(guc_max_capability_sets, verdict_bytes())));
}

/* A place was given to another shape: what was known of the old one is void. */
static void
forget_shape(int index)
{
	for (int i = 0; i < state->n_rings; i++)
		verdicts[i * verdict_bytes() + index / 4] &= ~(3 << (index % 4 * 2));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
queue_ring_startup(LWLock *lock, LWLockPadded *fill_locks)
{
	bool found;

	state = ShmemInitStruct("gpu_orch rings", queue_ring_size(), &found);
	rings = (RingSlot *) ((char *) state + MAXALIGN(sizeof(RingState)));
	verdicts = (uint8 *) rings + MAXALIGN(rings_size());
	if (!found)
	{
		memset(state, 0, queue_ring_size());
		state->lock = lock;
		pg_atomic_init_u64(&state->clock, 0);
		SpinLockInit(&state->prepared_mutex);
		for (int i = 0; i < WARM_WORKERS; i++)
			pg_atomic_init_u64(&state->warm[i], 0);
		for (int i = 0; i < guc_max_capability_sets; i++)
		{
			rings[i].fill_lock = &fill_locks[i].lock;
			SpinLockInit(&rings[i].mutex);
			pg_atomic_init_u64(&rings[i].used_at, 0);
		}
	}
	queue_bound_reused(forget_shape);
}

static bool
is_ring(const RingSlot *slot, const Ring *ring)
{
	return slot->key.capset == ring->capset && slot->key.queue.database == ring->queue.database &&
		slot->key.queue.file == ring->queue.file;
}

static bool
lookup(Ring *ring)
{
	for (int i = 0; i < state->n_rings; i++)
		if (is_ring(&rings[i], ring))
		{
			ring->index = i;
			return true;
		}
	return false;
}

/* Find a ring's place, or take that of the one unused for longest. */
static void
find_place(Ring *ring)
{
	bool found;
	int index = 0;
	RingSlot *slot;

	LWLockAcquire(state->lock, LW_SHARED);
	found = lookup(ring);
	LWLockRelease(state->lock);
	if (found)
		return;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (lookup(ring))
	{
		LWLockRelease(state->lock);
		return;
	}
	if (state->n_rings < guc_max_capability_sets)
		index = state->n_rings++;
	else
		for (int i = 1; i < state->n_rings; i++)
			if (pg_atomic_read_u64(&rings[i].used_at) < pg_atomic_read_u64(&rings[index].used_at))
				index = i;
	slot = &rings[index];
	SpinLockAcquire(&slot->mutex);
	slot->key.queue = ring->queue;
	slot->key.capset = ring->capset;
	slot->stale = true;
	slot->empty = false;
	slot->want = FIRST_FILL;
	slot->n = 0;
	SpinLockRelease(&slot->mutex);
	memset(verdicts + index * verdict_bytes(), 0, verdict_bytes());
	ring->index = index;
	LWLockRelease(state->lock);
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
	SpinLockAcquire(&state->prepared_mutex);
	if (state->n_prepared < MAX_PREPARED)
		state->prepared[state->n_prepared++] = (Prepared){ xid, queue, *first };
	SpinLockRelease(&state->prepared_mutex);
}

/* Act on the prepared transactions that have ended. */
static void
look_at_prepared(void)
{
	Prepared prepared[MAX_PREPARED];
	int n;

	SpinLockAcquire(&state->prepared_mutex);
	n = state->n_prepared;
	memcpy(prepared, state->prepared, n * sizeof(Prepared));
	SpinLockRelease(&state->prepared_mutex);
	for (int i = 0; i < n; i++)
	{
		if (TransactionIdIsInProgress(prepared[i].xid))
			continue;
		queue_ring_disturb(prepared[i].queue, &prepared[i].first);
		SpinLockAcquire(&state->prepared_mutex);
		for (int j = 0; j < state->n_prepared; j++)
			if (state->prepared[j].xid == prepared[i].xid)
				state->prepared[j] = state->prepared[--state->n_prepared];
		SpinLockRelease(&state->prepared_mutex);
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
	if (ring->index < 0)
		find_place(ring);
	slot = &rings[ring->index];
	SpinLockAcquire(&slot->mutex);
	if (!is_ring(slot, ring))
		ring->index = -1;
	else if (!slot->stale && slot->n > 0)
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
	SpinLockRelease(&slot->mutex);
	if (answer == RING_TOOK)
		pg_atomic_write_u64(&slot->used_at, pg_atomic_fetch_add_u64(&state->clock, 1));
	return answer;
}

/* Say that the row of an entry was gone. */
void
queue_ring_missed(Ring *ring)
{
	RingSlot *slot = &rings[ring->index];

	SpinLockAcquire(&slot->mutex);
	slot->missed++;
	SpinLockRelease(&slot->mutex);
}

/*
 * Begin to look into the index for a ring's capability set, alone: until it ends
 * or the transaction aborts, cancellation waits. False when somebody else did so
 * meanwhile; then pop again. *want is the number of rows to find.
 */
bool
queue_ring_begin_fill(Ring *ring, int *want)
{
	RingSlot *slot;
	bool ours;

	if (ring->index < 0)
		find_place(ring);
	slot = &rings[ring->index];
	LWLockAcquire(slot->fill_lock, LW_EXCLUSIVE);
	SpinLockAcquire(&slot->mutex);
	ours = is_ring(slot, ring) && (slot->stale || (slot->n == 0 && !slot->empty));
	if (ours)
	{
		/* What was left when the ring became stale was too much. */
		if (slot->stale && slot->n > slot->want / 2 && slot->want > FIRST_FILL)
			slot->want /= 2;
		slot->stale = false;
		slot->empty = false;
		slot->last = QUEUE_KEY_FIRST;
		slot->put_meanwhile = QUEUE_KEY_LAST;
		slot->n_passed = 0;
		for (int i = 0; i < slot->n && i < MAX_LOCALITY_WINDOW; i++)
			if (slot->entries[slot->first + i].passed > 0)
				slot->passed[slot->n_passed++] = slot->entries[slot->first + i];
		slot->first = slot->n = 0;
		ring->filling = ring->index;
		*want = Max(*want, slot->want);
	}
	else if (!is_ring(slot, ring))
		ring->index = -1;
	SpinLockRelease(&slot->mutex);
	if (!ours)
		LWLockRelease(slot->fill_lock);
	return ours;
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
 * it; settled: nothing in progress was seen either.
 */
void
queue_ring_end_fill(Ring *ring, const RingEntry *entries, int n, bool all, bool settled)
{
	RingSlot *slot = &rings[ring->filling];

	Assert(n <= RING_SIZE);
	SpinLockAcquire(&slot->mutex);
	if (is_ring(slot, ring))
	{
		memcpy(slot->entries, entries, n * sizeof(RingEntry));
		slot->first = slot->missed = 0;
		slot->n = slot->filled = n;
		remember_passed(slot);
		slot->empty = n == 0 && all && settled;
		slot->last = all ? QUEUE_KEY_LAST : entries[n - 1].key;
		slot->stale = queue_key_before(&slot->put_meanwhile, &slot->last);
	}
	SpinLockRelease(&slot->mutex);
	LWLockRelease(slot->fill_lock);
}

/* Stop looking without a result. */
void
queue_ring_abandon_fill(Ring *ring)
{
	RingSlot *slot = &rings[ring->filling];

	SpinLockAcquire(&slot->mutex);
	slot->stale = true;
	SpinLockRelease(&slot->mutex);
	LWLockRelease(slot->fill_lock);
}

/*
 * The shapes with work that a ring's capability set meets, and those of which that
 * is not known yet; both allocated in the current memory context. Returns how many
 * match, or -1 when that cannot be told now: the queue is not known, the ring lost
 * its place, or more shapes came meanwhile.
 */
int
queue_ring_candidates(Ring *ring, ShapeView **views, int64 **unknown, int *n_unknown)
{
	int n = 0;
	int max;
	uint8 *bits;

	*n_unknown = 0;
	if (ring->index < 0)
		find_place(ring);
	LWLockAcquire(state->lock, LW_SHARED);
	max = queue_bound_count() + 1;
	LWLockRelease(state->lock);
	*views = palloc(max * sizeof(ShapeView));
	*unknown = palloc(max * sizeof(int64));

	LWLockAcquire(state->lock, LW_SHARED);
	bits = verdicts + ring->index * verdict_bytes();
	for (int i = 0; i < queue_bound_count() && i < max; i++)
	{
		Verdict verdict = (bits[i / 4] >> (i % 4 * 2)) & 3;

		if (verdict == VERDICT_NO || !queue_bound_look(i, ring->queue, &(*views)[n]))
			continue;
		if (verdict == VERDICT_YES)
			n++;
		else
			(*unknown)[(*n_unknown)++] = (*views)[n].shape;
	}
	if (!is_ring(&rings[ring->index], ring))
		ring->index = n = -1;
	else if (queue_bound_count() > max || !queue_bound_known(ring->queue))
		n = -1;
	LWLockRelease(state->lock);
	return n;
}

/*
 * Remember whether a ring's capability set meets a shape, and the digest of the
 * model that the shape asks for. Of no effect when either has lost its place.
 */
void
queue_ring_set_verdict(Ring *ring, int64 shape, bool matches, uint32 model)
{
	ShapeView view;

	if (ring->index < 0 || !queue_bound_find(ring->queue, shape, &view))
		return;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (is_ring(&rings[ring->index], ring) && queue_bound_is(view.index, ring->queue, shape))
	{
		uint8 *bits = verdicts + ring->index * verdict_bytes() + view.index / 4;
		int shift = view.index % 4 * 2;

		*bits = (*bits & ~(3 << shift)) | ((matches ? VERDICT_YES : VERDICT_NO) << shift);
		queue_bound_set_model(view.index, model);
	}
	LWLockRelease(state->lock);
}

/* A row became claimable at a key: rings that reach beyond it must look again. */
void
queue_ring_disturb(QueueId queue, const QueueKey *key)
{
	int n;

	LWLockAcquire(state->lock, LW_SHARED);
	n = state->n_rings;
	for (int i = 0; i < n; i++)
	{
		RingSlot *slot = &rings[i];

		if (slot->key.queue.database != queue.database || slot->key.queue.file != queue.file)
			continue;
		SpinLockAcquire(&slot->mutex);
		if (queue_key_before(key, &slot->last))
			slot->stale = true;
		if (queue_key_before(key, &slot->put_meanwhile))
			slot->put_meanwhile = *key;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(state->lock);
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
