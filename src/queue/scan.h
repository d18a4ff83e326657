/*
 * queue/scan.h
 *	  Scans of the index of the queue.
 */
#ifndef GPU_ORCH_QUEUE_SCAN_H
#define GPU_ORCH_QUEUE_SCAN_H

#include "executor/tuptable.h"
#include "queue/ring.h"
#include "utils/relcache.h"

/* The table of the queue and its index ready_queue_head, both open. */
typedef struct QueueTable
{
	Relation table;
	Relation index;
	int32 (*tenant_of)(TupleTableSlot *row);
} QueueTable;

/* Claimable tasks of one shape, counted up to a limit. */
typedef struct ShapeCount
{
	int64 shape;
	int64 count;
} ShapeCount;

/* What a scan found. */
typedef struct Found
{
	int n;
	RingEntry entries[RING_SIZE];
	bool all;	  /* there is nothing beyond them */
	bool settled; /* nothing in progress was seen */
	bool paused;  /* it stopped in the middle: scan again for more */
} Found;

extern QueueId queue_scan_id(Relation table);
extern Found *queue_scan_rows(const QueueTable *queue, const ShapeView *views, int n_views,
							  int want, bool own);
extern int queue_scan_count(const QueueTable *queue, int64 limit, ShapeCount **counts);
extern void queue_scan_discover(const QueueTable *queue);
extern void queue_scan_recheck(const QueueTable *queue);

#endif
