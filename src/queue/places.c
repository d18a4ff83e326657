/*
 * queue/places.c
 *	  Places in shared memory: for queues, for shapes with work, for capability sets.
 *
 * A shape's place has its bound (queue/bound.h). Without bounds a claim would walk over
 * every dead entry in front of the first claimable row, and ask the index once for
 * each shape. A bound may be lost, never wrong:
 *
 * - it may pass only rows whose deletion committed or whose insertion did not, and
 *   stops at anything in progress;
 * - who inserts a row lowers the bound after the index entry is written and before
 *   the transaction commits (queue_places_put). A scan that missed the entry began
 *   before that, and its raise stops at what was put since it began;
 * - it is known by database and file, so truncating or rewriting the table
 *   starts anew, as does a restart; then the index is read (queue/scan.c).
 *
 * A capability set's place has one verdict for each shape's place: whether workers with
 * these capabilities serve the shape. Shapes and sets are named by digests, so a
 * verdict never goes stale.
 *
 * Places for shapes are few, so tenants and databases share them (queue/share.c).
 * Tasks of a shape that gets no place wait outside the queue (store/task.c). A place
 * belongs to the tenant that put the first task; once the shape has no work it is
 * anybody's.
 *
 * One lock guards who has which place, and the verdicts. Functions whose names end in
 * _locked are for callers that hold it. A spinlock for each place guards its bound.
 * Nothing here reads a table, waits or raises an error while it holds either.
 */
#include "postgres.h"

#include "base/guc.h"
#include "port/atomics.h"
#include "queue/places.h"
#include "queue/share.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/hsearch.h"

/* Queue tables that are known at a time: one of each database in use. */
#define MAX_QUEUES 64

/* Not a place. */
#define NO_PLACE (-1)

typedef enum Verdict
{
	VERDICT_UNKNOWN,
	VERDICT_NO,
	VERDICT_YES
} Verdict;

typedef struct ShapeKey
{
	QueueId queue;
	int64 shape;
} ShapeKey;

typedef struct ShapeEntry
{
	ShapeKey key;
	int index;
} ShapeEntry;

typedef struct ShapePlace
{
	/* guarded by the lock */
	ShapeKey key; /* database 0: free */
	int32 tenant;
	uint32 model;
	int next_free;

	slock_t mutex;		 /* guards what follows; the work flag may be read without it */
	uint64 generation;	 /* counts puts and changes of the shape; never reset */
	uint64 looked_at;	 /* generation at the last look for candidates */
	QueuePuts put_since; /* since then */
	QueueKey last_put;	 /* the greatest key of all that were put */
	int64 last_tag;
	ShapeBound bound;
} ShapePlace;

typedef struct QueuePlace
{
	QueueId queue; /* database 0: free */
	bool known;	   /* all shapes with work have a place, as far as there are places */
	int n_shapes;
	pg_atomic_uint64 used_at;
} QueuePlace;

typedef struct SetPlace
{
	QueueId queue;
	int64 capset;
	pg_atomic_uint64 used_at;
} SetPlace;

typedef struct PlacesState
{
	LWLock *lock;
	pg_atomic_uint64 clock; /* counts uses, to find what was not used for longest */
	QueuePlace queues[MAX_QUEUES];
	int n_sets; /* places ever used */
	int n_used; /* shapes' places that were used ever */
	int n_free; /* of these, in the list of free ones */
	int first_free;
	pg_atomic_uint32 n_idle; /* places of shapes without work */
} PlacesState;

static PlacesState *state = NULL;
static ShapePlace *places = NULL;
static SetPlace *sets = NULL;
static uint8 *verdicts = NULL; /* two bits for each set and shape */
static HTAB *shapes = NULL;

static Size
verdict_bytes(void)
{
	return (guc_max_shapes + 3) / 4;
}

static Size
places_size(void)
{
	return MAXALIGN(mul_size(guc_max_shapes, sizeof(ShapePlace)));
}

static Size
sets_size(void)
{
	return MAXALIGN(mul_size(guc_max_capability_sets, sizeof(SetPlace)));
}

static Size
array_size(void)
{
	Size size = add_size(MAXALIGN(sizeof(PlacesState)), add_size(places_size(), sets_size()));

	return add_size(size, mul_size(guc_max_capability_sets, verdict_bytes()));
}

/* Shared memory that is needed. */
Size
queue_places_size(void)
{
	return add_size(
		MAXALIGN(array_size()),
		add_size(hash_estimate_size(guc_max_shapes, sizeof(ShapeEntry)), queue_share_size()));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
queue_places_startup(LWLock *lock)
{
	HASHCTL control = { 0 };
	bool found;

	state = ShmemInitStruct("gpu_orch places", array_size(), &found);
	places = (ShapePlace *) ((char *) state + MAXALIGN(sizeof(PlacesState)));
	sets = (SetPlace *) ((char *) places + places_size());
	verdicts = (uint8 *) sets + sets_size();
	if (!found)
	{
		memset(state, 0, array_size());
		state->lock = lock;
		state->first_free = NO_PLACE;
		pg_atomic_init_u64(&state->clock, 1);
		pg_atomic_init_u32(&state->n_idle, 0);
		for (int i = 0; i < MAX_QUEUES; i++)
			pg_atomic_init_u64(&state->queues[i].used_at, 0);
		for (int i = 0; i < guc_max_capability_sets; i++)
			pg_atomic_init_u64(&sets[i].used_at, 0);
		for (int i = 0; i < guc_max_shapes; i++)
			SpinLockInit(&places[i].mutex);
	}
	control.keysize = sizeof(ShapeKey);
	control.entrysize = sizeof(ShapeEntry);
	shapes = ShmemInitHash("gpu_orch shapes", guc_max_shapes, guc_max_shapes, &control,
						   HASH_ELEM | HASH_BLOBS);
	queue_share_startup();
}

/* Note that something is used; costs nothing while nothing else is. */
static void
touch(pg_atomic_uint64 *used_at)
{
	if (pg_atomic_read_u64(used_at) != pg_atomic_read_u64(&state->clock))
		pg_atomic_write_u64(used_at, pg_atomic_add_fetch_u64(&state->clock, 1));
}

/* The place of a queue, NULL if it has none. */
static QueuePlace *
find_queue_locked(QueueId queue)
{
	for (int i = 0; i < MAX_QUEUES; i++)
		if (queue_same(state->queues[i].queue, queue))
			return &state->queues[i];
	return NULL;
}

/* Whether every shape of a queue that has work is known here. */
static bool
known_locked(QueueId queue)
{
	QueuePlace *place = find_queue_locked(queue);

	if (place == NULL || !place->known)
		return false;
	touch(&place->used_at);
	return true;
}

/* Whether every shape of a queue that has work is known here. */
bool
queue_places_known(QueueId queue)
{
	bool known;

	LWLockAcquire(state->lock, LW_SHARED);
	known = known_locked(queue);
	LWLockRelease(state->lock);
	return known;
}

/*
 * Whether a tenant may have one more place in a queue, by its share of those of its
 * database. one_more: the database would have one more as well, and may by its share.
 */
static bool
in_share_locked(const QueuePlace *queue, int32 tenant, bool one_more)
{
	int others = state->n_used - state->n_free - queue->n_shapes;
	int share = queue_share_of_locked(guc_max_shapes - others);

	return (!one_more || queue->n_shapes < share) &&
		queue_share_allows_locked(queue->queue.database, tenant, share, queue->n_shapes);
}

/* Take a place away from its shape. */
static void
free_locked(int index)
{
	ShapePlace *place = &places[index];

	queue_share_charge_locked(place->key.queue.database, place->tenant, -1);
	find_queue_locked(place->key.queue)->n_shapes--;
	(void) hash_search(shapes, &place->key, HASH_REMOVE, NULL);
	SpinLockAcquire(&place->mutex);
	if (!place->bound.work)
		pg_atomic_fetch_sub_u32(&state->n_idle, 1);
	place->bound.work = false;
	place->looked_at = ++place->generation;
	SpinLockRelease(&place->mutex);
	memset(&place->key, 0, sizeof(ShapeKey));
	place->next_free = state->first_free;
	state->first_free = index;
	state->n_free++;
}

/* Take the places away from shapes without work, or from all of a queue, unless that is NULL. */
static void
free_some_locked(const QueueId *queue)
{
	for (int i = 0; i < state->n_used; i++)
	{
		ShapePlace *place = &places[i];

		if (place->key.queue.database == InvalidOid)
			continue;
		if (queue ? queue_same(place->key.queue, *queue) : !place->bound.work)
			free_locked(i);
	}
}

/*
 * Give a queue a place: that of the queue that its database had before, or else that of
 * the queue that was not used for longest.
 */
static QueuePlace *
enter_queue_locked(QueueId queue)
{
	QueuePlace *place = &state->queues[0];

	for (int i = 0; i < MAX_QUEUES; i++)
	{
		QueuePlace *other = &state->queues[i];

		if (other->queue.database == queue.database)
		{
			place = other;
			break;
		}
		if (pg_atomic_read_u64(&other->used_at) < pg_atomic_read_u64(&place->used_at))
			place = other;
	}
	if (!queue_same(place->queue, queue))
	{
		if (place->queue.database != InvalidOid)
			free_some_locked(&place->queue);
		place->queue = queue;
		place->known = false;
	}
	touch(&place->used_at);
	return place;
}

/* Say that the whole index of a queue was read. */
void
queue_places_set_known(QueueId queue)
{
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	enter_queue_locked(queue)->known = true;
	LWLockRelease(state->lock);
}

/* The place of a shape, NO_PLACE if it has none. */
static int
find_shape_locked(QueueId queue, int64 shape)
{
	ShapeKey key = { queue, shape };
	ShapeEntry *entry = hash_search(shapes, &key, HASH_FIND, NULL);

	return entry ? entry->index : NO_PLACE;
}

/*
 * Whether a shape that is not there could be given a place: within the shares, unless
 * these are not asked for, of what is free.
 */
static bool
may_enter_locked(QueueId queue, int32 tenant, bool by_share)
{
	QueuePlace *place = enter_queue_locked(queue);

	for (;;)
	{
		if (state->n_used - state->n_free < guc_max_shapes &&
			(!by_share || in_share_locked(place, tenant, true)))
			return true;
		if (pg_atomic_read_u32(&state->n_idle) == 0)
			return false;
		free_some_locked(NULL);
	}
}

/* Give a shape a place; NO_PLACE if it may have none. Under the exclusive lock. */
static int
enter_shape_locked(QueueId queue, int64 shape, int32 tenant, bool by_share)
{
	ShapeKey key = { queue, shape };
	ShapeEntry *entry;
	ShapePlace *place;
	int index;

	if (!may_enter_locked(queue, tenant, by_share))
		return NO_PLACE;
	entry = hash_search(shapes, &key, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
		return NO_PLACE;
	if (state->n_free > 0)
	{
		index = state->first_free;
		state->first_free = places[index].next_free;
		state->n_free--;
	}
	else
		index = state->n_used++;
	entry->index = index;
	place = &places[index];
	place->key = key;
	place->tenant = tenant;
	place->model = 0;
	queue_share_charge_locked(place->key.queue.database, place->tenant, 1);
	find_queue_locked(queue)->n_shapes++;
	SpinLockAcquire(&place->mutex);
	place->looked_at = ++place->generation;
	place->put_since = QUEUE_NO_PUTS;
	place->last_put = QUEUE_KEY_FIRST;
	place->last_tag = 0;
	queue_bound_clear(&place->bound);
	pg_atomic_fetch_add_u32(&state->n_idle, 1);
	SpinLockRelease(&place->mutex);
	for (int i = 0; i < state->n_sets; i++)
		verdicts[i * verdict_bytes() + index / 4] &= ~(3 << (index % 4 * 2));
	return index;
}

/* Set whether a shape has work. Under the place's spinlock. */
static void
set_work(ShapePlace *place, bool work)
{
	if (place->bound.work != work)
		pg_atomic_fetch_add_u32(&state->n_idle, work ? -1 : 1);
	place->bound.work = work;
}

/* Whether a tenant may put tasks into a place as it is: it has work, or is the tenant's own. */
static bool
usable_locked(int index, int32 tenant)
{
	return index != NO_PLACE && (places[index].bound.work || places[index].tenant == tenant);
}

/*
 * Whether a tenant may put tasks of a shape, which has this place or none: now, or
 * once it is charged for the place, or once the shape is given one. Under the
 * exclusive lock; places without work may be taken away.
 */
static bool
obtainable_locked(QueueId queue, int index, int32 tenant)
{
	return usable_locked(index, tenant) ||
		(index != NO_PLACE && in_share_locked(enter_queue_locked(queue), tenant, false)) ||
		may_enter_locked(queue, tenant, true);
}

/*
 * Make sure that a shape of which a tenant will put a task has a place, before the task
 * is put. Once the transaction has put it, see queue_places_put(). A place without work
 * stays for as long as no scan has found that it has none.
 */
PlaceAnswer
queue_places_reserve(QueueId queue, int64 shape, int32 tenant)
{
	PlaceAnswer answer = PLACE_GIVEN;
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	if (!known_locked(queue))
	{
		LWLockRelease(state->lock);
		return PLACE_QUEUE_UNKNOWN;
	}
	index = find_shape_locked(queue, shape);
	if (!usable_locked(index, tenant))
	{
		LWLockRelease(state->lock);
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
		index = find_shape_locked(queue, shape);
		if (!obtainable_locked(queue, index, tenant))
			index = NO_PLACE;
		else if ((index = find_shape_locked(queue, shape)) == NO_PLACE)
			index = enter_shape_locked(queue, shape, tenant, true);
		else if (!usable_locked(index, tenant))
		{
			queue_share_charge_locked(queue.database, places[index].tenant, -1);
			places[index].tenant = tenant;
			queue_share_charge_locked(queue.database, tenant, 1);
		}
	}
	if (index == NO_PLACE)
	{
		queue_share_refuse_locked(queue.database, tenant);
		answer = PLACE_REFUSED;
	}
	else if (!places[index].bound.work)
	{
		SpinLockAcquire(&places[index].mutex);
		set_work(&places[index], true);
		SpinLockRelease(&places[index].mutex);
	}
	LWLockRelease(state->lock);
	return answer;
}

/*
 * Say that a row of a shape stands at a key. To be called after its index entry was
 * written and before its transaction commits. A shape without a place is given one
 * if any is free. False, and nothing is noted, when there is none: the row is found by
 * the leader's recheck once there is. found: nobody said so when the row was put, so that
 * others may stand behind it of which nobody did either.
 */
bool
queue_places_put(QueueId queue, int64 shape, int32 tenant, const QueueKey *key, bool found)
{
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape_locked(queue, shape);
	if (index == NO_PLACE)
	{
		LWLockRelease(state->lock);
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
		index = find_shape_locked(queue, shape);
		if (index == NO_PLACE)
			index = enter_shape_locked(queue, shape, tenant, false);
	}
	if (index != NO_PLACE)
	{
		ShapePlace *place = &places[index];
		QueuePuts put = { *key, *key };

		SpinLockAcquire(&place->mutex);
		place->generation++;
		queue_puts_add(&place->put_since, key);
		set_work(place, true);
		if (found)
		{
			/* Scans under way do not know that either. */
			place->looked_at = place->generation;
			place->put_since = QUEUE_NO_PUTS;
			place->bound.passed = 0;
			place->bound.gap.length = 0;
		}
		queue_bound_put(&place->bound, &put, &place->last_put);
		if (queue_key_before(&place->last_put, key))
			place->last_put = *key;
		SpinLockRelease(&place->mutex);
	}
	LWLockRelease(state->lock);
	return index != NO_PLACE;
}

/* Whether a shape has a place for a tenant's task that wants one, or could be given one. */
bool
queue_places_room(QueueId queue, int64 shape, int32 tenant)
{
	bool room;

	LWLockAcquire(state->lock, LW_SHARED);
	room = usable_locked(find_shape_locked(queue, shape), tenant);
	LWLockRelease(state->lock);
	if (room)
		return true;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	room = obtainable_locked(queue, find_shape_locked(queue, shape), tenant);
	if (!room)
		queue_share_refuse_locked(queue.database, tenant);
	LWLockRelease(state->lock);
	return room;
}

/* See queue_share_refused_locked(). */
bool
queue_places_refused(QueueId queue, TimestampTz since, int *at, int32 *tenant)
{
	bool found;

	LWLockAcquire(state->lock, LW_SHARED);
	found = queue_share_refused_locked(queue.database, since, at, tenant);
	LWLockRelease(state->lock);
	return found;
}

/* See queue_share_content_locked(). */
void
queue_places_content(QueueId queue, int32 tenant)
{
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	queue_share_content_locked(queue.database, tenant);
	LWLockRelease(state->lock);
}

/* What is known of a shape; for_scan: for a scan that will raise the bound. */
static void
view_locked(int index, ShapeView *view, bool for_scan)
{
	ShapePlace *place = &places[index];

	view->index = index;
	view->shape = place->key.shape;
	view->model = place->model;
	SpinLockAcquire(&place->mutex);
	if (for_scan)
	{
		place->looked_at = place->generation;
		place->put_since = QUEUE_NO_PUTS;
	}
	view->generation = place->generation;
	view->last_tag = place->last_tag;
	view->bound = place->bound;
	SpinLockRelease(&place->mutex);
}

/* What is known of a shape, see view_locked(); false if it has no place. */
bool
queue_places_find(QueueId queue, int64 shape, ShapeView *view, bool for_scan)
{
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape_locked(queue, shape);
	if (index != NO_PLACE)
		view_locked(index, view, for_scan);
	LWLockRelease(state->lock);
	return index != NO_PLACE;
}

/*
 * What is known of the next shape of a queue that has work, for a scan that will raise
 * its bound. *index counts on from 0. False when there is none.
 */
bool
queue_places_next(int *index, QueueId queue, ShapeView *view)
{
	bool found = false;

	LWLockAcquire(state->lock, LW_SHARED);
	while (!found && *index < state->n_used)
	{
		int i = (*index)++;

		found = places[i].bound.work && queue_same(places[i].key.queue, queue);
		if (found)
			view_locked(i, view, true);
	}
	LWLockRelease(state->lock);
	return found;
}

/*
 * Replace what is known of a shape by what a scan saw that began after the view
 * was taken. Rows that were put since stay known; when it is not known where they
 * stand, as after another look or when the place changed its shape, what the scan saw
 * is dropped.
 */
void
queue_places_raise(const ShapeView *view, const ShapeBound *seen)
{
	ShapePlace *place = &places[view->index];

	SpinLockAcquire(&place->mutex);
	if (place->generation == view->generation || place->looked_at == view->generation)
	{
		bool put = place->generation != view->generation;

		set_work(place, seen->work || put);
		place->bound = *seen;
		if (put)
			queue_bound_put(&place->bound, &place->put_since, &place->last_put);
	}
	SpinLockRelease(&place->mutex);
}

/* A row of a shape with this tag was claimed. */
void
queue_places_claimed(QueueId queue, int64 shape, int64 tag)
{
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape_locked(queue, shape);
	if (index != NO_PLACE)
	{
		SpinLockAcquire(&places[index].mutex);
		places[index].last_tag = tag;
		SpinLockRelease(&places[index].mutex);
	}
	LWLockRelease(state->lock);
}

/* Whether a set's place is its own still. */
static bool
has_set_locked(const CapabilityPlace *set)
{
	return set->index >= 0 && sets[set->index].capset == set->capset &&
		queue_same(sets[set->index].queue, set->queue);
}

static bool
find_set_locked(CapabilityPlace *set)
{
	for (set->index = 0; set->index < state->n_sets; set->index++)
		if (has_set_locked(set))
			return true;
	return false;
}

/* Find a capability set's place, or take that of the one that was not used for longest. */
void
queue_places_enter_set(CapabilityPlace *set)
{
	bool found;

	LWLockAcquire(state->lock, LW_SHARED);
	found = find_set_locked(set);
	LWLockRelease(state->lock);
	if (!found)
	{
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
		if (!find_set_locked(set))
		{
			set->index = 0;
			if (state->n_sets < guc_max_capability_sets)
				set->index = state->n_sets++;
			else
				for (int i = 1; i < state->n_sets; i++)
					if (pg_atomic_read_u64(&sets[i].used_at) <
						pg_atomic_read_u64(&sets[set->index].used_at))
						set->index = i;
			sets[set->index].queue = set->queue;
			sets[set->index].capset = set->capset;
			memset(verdicts + set->index * verdict_bytes(), 0, verdict_bytes());
		}
		LWLockRelease(state->lock);
	}
	touch(&sets[set->index].used_at);
}

/*
 * The shapes with work that a capability set meets, and those of which that is not
 * known yet; both allocated in the current memory context. Returns how many match, or
 * -1 when that cannot be told now: the queue is not known, or the set has lost its
 * place, or more shapes came meanwhile.
 */
int
queue_places_candidates(CapabilityPlace *set, ShapeView **views, int64 **unknown, int *n_unknown)
{
	int n = 0;
	int max;
	uint8 *bits;

	*n_unknown = 0;
	LWLockAcquire(state->lock, LW_SHARED);
	max = state->n_used + 1;
	LWLockRelease(state->lock);
	*views = palloc_extended(max * sizeof(ShapeView), MCXT_ALLOC_HUGE);
	*unknown = palloc(max * sizeof(int64));

	LWLockAcquire(state->lock, LW_SHARED);
	if (!has_set_locked(set))
		set->index = n = -1;
	else if (state->n_used > max || !known_locked(set->queue))
		n = -1;
	for (int i = 0; n >= 0 && i < state->n_used; i++)
	{
		Verdict verdict;

		bits = verdicts + set->index * verdict_bytes();
		verdict = (bits[i / 4] >> (i % 4 * 2)) & 3;
		if (verdict == VERDICT_NO || !places[i].bound.work ||
			!queue_same(places[i].key.queue, set->queue))
			continue;
		view_locked(i, &(*views)[n], verdict == VERDICT_YES);
		if (verdict == VERDICT_YES)
			n++;
		else
			(*unknown)[(*n_unknown)++] = (*views)[n].shape;
	}
	LWLockRelease(state->lock);
	return n;
}

/*
 * Remember whether a capability set meets a shape, and the digest of the model that
 * the shape asks for. Of no effect when either has lost its place.
 */
void
queue_places_set_verdict(const CapabilityPlace *set, int64 shape, bool matches, uint32 model)
{
	int index;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	index = find_shape_locked(set->queue, shape);
	if (has_set_locked(set) && index != NO_PLACE)
	{
		uint8 *bits = verdicts + set->index * verdict_bytes() + index / 4;
		int shift = index % 4 * 2;

		*bits = (*bits & ~(3 << shift)) | ((matches ? VERDICT_YES : VERDICT_NO) << shift);
		places[index].model = model;
	}
	LWLockRelease(state->lock);
}
