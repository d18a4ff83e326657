/*
 * queue/bound.c
 *	  Lower bounds of what is claimable, for each shape, in shared memory.
 *
 * Without them a claim would walk over every dead entry in front of the first
 * claimable row, and ask the index once for each shape. A bound may be lost,
 * never wrong:
 *
 * - it may pass only rows whose deletion committed or whose insertion did not, and
 *   stops at anything in progress;
 * - whoever inserts a row lowers the bound after the index entry is written and
 *   before the transaction commits. A scan that missed the entry began before, and
 *   its raise stops at what was put since it began;
 * - it is known by database and file, so truncating or rewriting the table
 *   starts anew, as does a restart; then the index is read (queue/ready.c).
 *
 * A shape without work gives its place to another one. When all places have
 * work, another shape's tasks are kept out of the queue: see store/task.c.
 * Nothing here reads a table.
 */
#include "postgres.h"

#include "base/guc.h"
#include "queue/bound.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/hsearch.h"

/* Queue tables that are known at a time; there is one in each database in use. */
#define MAX_QUEUES 16

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

typedef struct ShapeSlot
{
	slock_t mutex;		/* guards the bound and the generation */
	ShapeKey key;		/* changes under the lock only */
	uint64 generation;	/* never reset, so that it tells reuse too */
	uint64 looked_at;	/* generation at the last look for candidates */
	QueueKey least_put; /* since then */
	int64 last_tag;
	uint32 model;
	ShapeBound bound;
} ShapeSlot;

typedef struct QueueSlot
{
	QueueId queue; /* database 0: free */
	bool known;	   /* all of its shapes with work are here */
	uint64 used_at;
} QueueSlot;

typedef struct BoundState
{
	LWLock *lock; /* exclusive to give a place to a shape or a queue */
	uint64 clock; /* counts uses, to find what was not used for long */
	QueueSlot queues[MAX_QUEUES];
	int n_shapes; /* places ever used */
	int hand;	  /* where the last search for a free place ended */
	ShapeSlot shapes[FLEXIBLE_ARRAY_MEMBER];
} BoundState;

static BoundState *state = NULL;
static HTAB *table = NULL;
static void (*on_reuse)(int index) = NULL;

static Size
array_size(void)
{
	return add_size(offsetof(BoundState, shapes), mul_size(guc_max_shapes, sizeof(ShapeSlot)));
}

/* Shared memory that is needed. */
Size
queue_bound_size(void)
{
	return add_size(MAXALIGN(array_size()), hash_estimate_size(guc_max_shapes, sizeof(ShapeEntry)));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
queue_bound_startup(LWLock *lock)
{
	HASHCTL control = { 0 };
	bool found;

	state = ShmemInitStruct("gpu_orch bounds", array_size(), &found);
	if (!found)
	{
		memset(state, 0, array_size());
		state->lock = lock;
		for (int i = 0; i < guc_max_shapes; i++)
			SpinLockInit(&state->shapes[i].mutex);
	}
	control.keysize = sizeof(ShapeKey);
	control.entrysize = sizeof(ShapeEntry);
	table = ShmemInitHash("gpu_orch shapes", guc_max_shapes, guc_max_shapes, &control,
						  HASH_ELEM | HASH_BLOBS);
}

/* Have a function called, under the exclusive lock, when a place changes its shape. */
void
queue_bound_reused(void (*callback)(int index))
{
	on_reuse = callback;
}

static bool
same_queue(QueueId a, QueueId b)
{
	return a.database == b.database && a.file == b.file;
}

/* The place of a queue, NULL if it has none. Under the lock. */
static QueueSlot *
find_queue(QueueId queue)
{
	for (int i = 0; i < MAX_QUEUES; i++)
		if (same_queue(state->queues[i].queue, queue))
			return &state->queues[i];
	return NULL;
}

/* Whether every shape of a queue that has work is known here. Under the lock. */
bool
queue_bound_known(QueueId queue)
{
	QueueSlot *slot = find_queue(queue);

	return slot != NULL && slot->known;
}

/* The same, for those that do not hold the lock. */
bool
queue_bound_is_known(QueueId queue)
{
	bool known;

	LWLockAcquire(state->lock, LW_SHARED);
	known = queue_bound_known(queue);
	LWLockRelease(state->lock);
	return known;
}

/* Give a queue a place, taking that of the one unused for longest. Under the exclusive lock. */
static QueueSlot *
enter_queue(QueueId queue)
{
	QueueSlot *slot = find_queue(queue);

	if (slot == NULL)
	{
		slot = &state->queues[0];
		for (int i = 1; i < MAX_QUEUES; i++)
			if (state->queues[i].used_at < slot->used_at)
				slot = &state->queues[i];
		slot->queue = queue;
		slot->known = false;
	}
	slot->used_at = ++state->clock;
	return slot;
}

/* Say that the whole index of a queue was read. */
void
queue_bound_set_known(QueueId queue)
{
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	enter_queue(queue)->known = true;
	LWLockRelease(state->lock);
}

/* The place of a shape, -1 if it has none. Under the lock. */
static int
find_shape(QueueId queue, int64 shape)
{
	ShapeKey key = { queue, shape };
	ShapeEntry *entry = hash_search(table, &key, HASH_FIND, NULL);

	return entry ? entry->index : -1;
}

/* A place that may be given to another shape, -1 if there is none. Under the exclusive lock. */
static int
free_place(void)
{
	if (state->n_shapes < guc_max_shapes)
		return state->n_shapes;
	for (int i = 0; i < guc_max_shapes; i++)
	{
		int index = (state->hand + i) % guc_max_shapes;
		ShapeSlot *slot = &state->shapes[index];

		if (!slot->bound.work || find_queue(slot->key.queue) == NULL)
		{
			state->hand = index + 1;
			return index;
		}
	}
	return -1;
}

/* Give a shape a place; -1 if all have work. Under the exclusive lock. */
static int
enter_shape(QueueId queue, int64 shape)
{
	ShapeKey key = { queue, shape };
	int index = find_shape(queue, shape);
	ShapeSlot *slot;
	bool found;

	if (index >= 0)
		return index;
	index = free_place();
	if (index < 0)
		return -1;
	(void) enter_queue(queue);
	slot = &state->shapes[index];
	if (index < state->n_shapes)
		(void) hash_search(table, &slot->key, HASH_REMOVE, NULL);
	else
		state->n_shapes++;
	((ShapeEntry *) hash_search(table, &key, HASH_ENTER, &found))->index = index;
	SpinLockAcquire(&slot->mutex);
	slot->key = key;
	slot->looked_at = ++slot->generation;
	slot->least_put = QUEUE_KEY_LAST;
	slot->model = 0;
	slot->last_tag = 0;
	slot->bound.work = false;
	SpinLockRelease(&slot->mutex);
	if (on_reuse != NULL)
		on_reuse(index);
	return index;
}

/*
 * Say that a row of a shape stands at a key. To be called after its index entry
 * was written and before its transaction commits. False, and nothing is noted,
 * when there is no place for another shape.
 */
bool
queue_bound_lower(QueueId queue, int64 shape, const QueueKey *key)
{
	int index;
	ShapeSlot *slot;
	ShapeBound *bound;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape(queue, shape);
	if (index < 0)
	{
		LWLockRelease(state->lock);
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
		index = enter_shape(queue, shape);
		if (index < 0)
		{
			LWLockRelease(state->lock);
			return false;
		}
	}
	slot = &state->shapes[index];
	bound = &slot->bound;
	SpinLockAcquire(&slot->mutex);
	slot->generation++;
	if (queue_key_before(key, &slot->least_put))
		slot->least_put = *key;
	if (!bound->work || queue_key_before(key, &bound->bound))
	{
		bound->work = true;
		bound->bound = *key;
		bound->n_gap_xids = 0;
	}
	else if (bound->n_gap_xids > 0 && queue_key_before(key, &bound->gap_end))
		bound->gap_end = *key;
	SpinLockRelease(&slot->mutex);
	LWLockRelease(state->lock);
	return true;
}

/* Whether a shape has a place or could be given one. */
bool
queue_bound_room(QueueId queue, int64 shape)
{
	bool room;

	LWLockAcquire(state->lock, LW_SHARED);
	room = state->n_shapes < guc_max_shapes || find_shape(queue, shape) >= 0;
	LWLockRelease(state->lock);
	if (room)
		return true;
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	room = free_place() >= 0;
	LWLockRelease(state->lock);
	return room;
}

/* Places ever used: shapes are looked at by index from 0. Under the lock. */
int
queue_bound_count(void)
{
	return state->n_shapes;
}

static void
view_slot(int index, ShapeView *view, bool for_raise)
{
	ShapeSlot *slot = &state->shapes[index];

	view->index = index;
	view->shape = slot->key.shape;
	view->model = slot->model;
	SpinLockAcquire(&slot->mutex);
	if (for_raise)
	{
		slot->looked_at = slot->generation;
		slot->least_put = QUEUE_KEY_LAST;
	}
	view->generation = slot->generation;
	view->last_tag = slot->last_tag;
	view->bound = slot->bound;
	SpinLockRelease(&slot->mutex);
}

/*
 * Look at a place, for a scan that will raise the bound; false unless a shape of
 * that queue with work has it. Under the lock.
 */
bool
queue_bound_look(int index, QueueId queue, ShapeView *view)
{
	ShapeSlot *slot = &state->shapes[index];

	if (!slot->bound.work || !same_queue(slot->key.queue, queue))
		return false;
	view_slot(index, view, true);
	return view->bound.work;
}

/*
 * The same for each place in turn; false beyond the last one. The bound of a place
 * that another queue has, or nobody, says that there is no work.
 */
bool
queue_bound_look_at(int index, QueueId queue, ShapeView *view)
{
	bool more;

	LWLockAcquire(state->lock, LW_SHARED);
	more = index < state->n_shapes;
	if (more && !queue_bound_look(index, queue, view))
		view->bound.work = false;
	LWLockRelease(state->lock);
	return more;
}

/* Look at a shape; false if it has no place. */
bool
queue_bound_find(QueueId queue, int64 shape, ShapeView *view)
{
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape(queue, shape);
	if (index >= 0)
		view_slot(index, view, false);
	LWLockRelease(state->lock);
	return index >= 0;
}

/*
 * Replace what is known of a shape by what a scan saw that began after the view
 * was taken. Rows that were put since stay above the bound; when it is not known
 * where they stand, as after another look or when the place changed its shape, what
 * the scan saw is dropped.
 */
void
queue_bound_raise(const ShapeView *view, const ShapeBound *seen)
{
	ShapeSlot *slot = &state->shapes[view->index];

	SpinLockAcquire(&slot->mutex);
	if (slot->generation == view->generation)
		slot->bound = *seen;
	else if (slot->looked_at == view->generation)
	{
		QueueKey put = slot->least_put;

		slot->bound = *seen;
		slot->bound.work = true;
		if (!seen->work || queue_key_before(&put, &seen->bound))
			slot->bound.bound = put;
		if (!seen->work)
			slot->bound.n_gap_xids = 0;
		else if (queue_key_before(&put, &seen->gap_end))
			slot->bound.gap_end = put;
	}
	SpinLockRelease(&slot->mutex);
}

/* A row of a shape with this tag was claimed. */
void
queue_bound_claimed(QueueId queue, int64 shape, int64 tag)
{
	int index;

	LWLockAcquire(state->lock, LW_SHARED);
	index = find_shape(queue, shape);
	if (index >= 0)
	{
		ShapeSlot *slot = &state->shapes[index];

		SpinLockAcquire(&slot->mutex);
		slot->last_tag = tag;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(state->lock);
}

/* Whether a place has this shape. Under the lock. */
bool
queue_bound_is(int index, QueueId queue, int64 shape)
{
	return same_queue(state->shapes[index].key.queue, queue) &&
		state->shapes[index].key.shape == shape;
}

/* Note the model that a place's shape asks for. Under the lock. */
void
queue_bound_set_model(int index, uint32 model)
{
	state->shapes[index].model = model;
}
