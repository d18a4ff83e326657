/*
 * queue/scan.h
 *	  Looking into the index of the queue.
 */
#ifndef GPU_ORCH_STORE_LOOK_H
#define GPU_ORCH_STORE_LOOK_H

#include "queue/ring.h"
#include "utils/relcache.h"

/* What a look found. */
typedef struct Found
{
	int n;
	RingEntry entries[RING_SIZE];
	bool all;	  /* there is nothing beyond them */
	bool settled; /* nothing in progress was seen */
	bool paused;  /* it stopped to be cancellable: look again */
} Found;

extern QueueId store_look_queue(Relation table);
extern Found *store_look(Relation table, Oid index_oid, const ShapeView *views, int n_views,
						 int want, bool own);
extern void store_look_discover(Relation table, Oid index_oid);
extern void store_look_recheck(Relation table, Oid index_oid);

#endif
