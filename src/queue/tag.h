/*
 * queue/tag.h
 *	  Fair shares: the tags by which tasks of equal priority are ordered.
 */
#ifndef GPU_ORCH_QUEUE_TAG_H
#define GPU_ORCH_QUEUE_TAG_H

#include "queue/places.h"

/* In place of a tenant: the virtual time of a queue. */
#define QUEUE_VIRTUAL_TIME (-1)

extern Size queue_tag_size(void);
extern void queue_tag_startup(LWLock *lock);

extern void queue_tag_begin(QueueId queue);
extern int64 queue_tag_next(QueueId queue, int64 shape, int32 tenant, double weight);
extern void queue_tag_claimed(QueueId queue, int64 shape, int64 tag);
extern void queue_tag_served(QueueId queue, int32 tenant, int64 microseconds);
extern void queue_tag_restore(QueueId queue, int32 tenant, int64 last);

#endif
