/*
 * queue/bound.h
 *	  Lower bounds of what is claimable, for each shape, in shared memory.
 */
#ifndef GPU_ORCH_QUEUE_BOUND_H
#define GPU_ORCH_QUEUE_BOUND_H

#include "access/transam.h"
#include "storage/lwlock.h"

/* A queue table: the one of a database, until it is truncated or rewritten. */
typedef struct QueueId
{
	Oid database;
	Oid file;
} QueueId;

/* The place of a row among those of its shape, in the order of the index. */
typedef struct QueueKey
{
	int32 rank; /* ~priority: the lower, the sooner */
	int64 tag;	/* fair share, see queue/tag.c */
	int64 task_id;
} QueueKey;

#define QUEUE_KEY_FIRST ((QueueKey){ PG_INT32_MIN, PG_INT64_MIN, PG_INT64_MIN })
#define QUEUE_KEY_LAST ((QueueKey){ PG_INT32_MAX, PG_INT64_MAX, PG_INT64_MAX })

static inline bool
queue_key_before(const QueueKey *a, const QueueKey *b)
{
	if (a->rank != b->rank)
		return a->rank < b->rank;
	if (a->tag != b->tag)
		return a->tag < b->tag;
	return a->task_id < b->task_id;
}

/* Transactions in progress that one gap may be made of. */
#define MAX_GAP_XIDS 16

/*
 * What is known of one shape: no claimable row stands below the bound. The rows
 * from the bound up to gap_end are all gone or in the hands of these transactions,
 * so they need no second look while all of these are in progress.
 */
typedef struct ShapeBound
{
	bool work; /* false: no claimable row at all */
	QueueKey bound;
	QueueKey gap_end;
	int n_gap_xids; /* 0: no gap */
	TransactionId gap_xids[MAX_GAP_XIDS];
} ShapeBound;

/* One shape as it was when it was looked at. */
typedef struct ShapeView
{
	int index;
	int64 shape;
	uint64 generation;
	uint32 model;	/* see queue/ring.c */
	int64 last_tag; /* of the last claim; 0: none yet */
	ShapeBound bound;
} ShapeView;

extern Size queue_bound_size(void);
extern void queue_bound_startup(LWLock *lock);

extern bool queue_bound_known(QueueId queue);
extern bool queue_bound_is_known(QueueId queue);
extern void queue_bound_set_known(QueueId queue);
extern bool queue_bound_lower(QueueId queue, int64 shape, const QueueKey *key);
extern bool queue_bound_room(QueueId queue, int64 shape);
extern int queue_bound_count(void);
extern bool queue_bound_look(int index, QueueId queue, ShapeView *view);
extern bool queue_bound_look_at(int index, QueueId queue, ShapeView *view);
extern bool queue_bound_find(QueueId queue, int64 shape, ShapeView *view);
extern void queue_bound_raise(const ShapeView *view, const ShapeBound *bound);
extern void queue_bound_claimed(QueueId queue, int64 shape, int64 tag);
extern bool queue_bound_is(int index, QueueId queue, int64 shape);
extern void queue_bound_set_model(int index, uint32 model);
extern void queue_bound_reused(void (*callback)(int index));

#endif
