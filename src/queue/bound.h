/*
 * queue/bound.h
 *	  What is known of the rows of one shape: where the first claimable one can
 *	  stand, and where none stands.
 */
#ifndef GPU_ORCH_QUEUE_BOUND_H
#define GPU_ORCH_QUEUE_BOUND_H

#include "access/transam.h"

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

/* Transactions in progress that the rows of one gap may be in the hands of. */
#define MAX_GAP_XIDS 16

/*
 * The rows between start and end, both excluded, are gone or in the hands of these
 * transactions. So they need no look while all of these are in progress.
 */
typedef struct QueueGap
{
	uint32 length; /* index entries, about; 0: there is no gap */
	QueueKey start;
	QueueKey end;
	int n_xids;
	TransactionId xids[MAX_GAP_XIDS];
} QueueGap;

/* What is known of one shape's rows. */
typedef struct ShapeBound
{
	bool work;		/* false: there is no claimable row, and the bound is the last key */
	QueueKey bound; /* no claimable row stands before it */
	uint32 passed;	/* index entries right before the bound, about, whose rows are gone */
	QueueGap gap;	/* the longest one that is known */
} ShapeBound;

/* The keys at which rows were put; least > greatest: at none. */
typedef struct QueuePuts
{
	QueueKey least;
	QueueKey greatest;
} QueuePuts;

#define QUEUE_NO_PUTS ((QueuePuts){ QUEUE_KEY_LAST, QUEUE_KEY_FIRST })

extern void queue_puts_add(QueuePuts *puts, const QueueKey *key);
extern void queue_bound_clear(ShapeBound *bound);
extern void queue_bound_put(ShapeBound *bound, const QueuePuts *puts, const QueueKey *last);
extern bool queue_gap_holds(const QueueGap *gap);

#endif
