/*
 * queue/places.h
 *	  Places in shared memory: for queues, for shapes with work, for capability sets.
 */
#ifndef GPU_ORCH_QUEUE_PLACES_H
#define GPU_ORCH_QUEUE_PLACES_H

#include "datatype/timestamp.h"
#include "queue/bound.h"
#include "storage/lwlock.h"

/* A queue table: the one of a database, until it is truncated or rewritten. */
typedef struct QueueId
{
	Oid database;
	Oid file;
} QueueId;

static inline bool
queue_same(QueueId a, QueueId b)
{
	return a.database == b.database && a.file == b.file;
}

/* One shape as it was when it was looked at. */
typedef struct ShapeView
{
	int index;
	int64 shape;
	uint64 generation;
	uint32 model;	/* digest of the model that the shape asks for; 0: none */
	int64 last_tag; /* of the last claim; 0: none yet */
	ShapeBound bound;
} ShapeView;

/* A capability set in one queue, and its place; index -1: to be looked up. */
typedef struct CapabilityPlace
{
	QueueId queue;
	int64 capset;
	int index;
} CapabilityPlace;

typedef enum PlaceAnswer
{
	PLACE_GIVEN,
	PLACE_REFUSED,		/* the database or the tenant has its share of them */
	PLACE_QUEUE_UNKNOWN /* the queue has to be read first: see queue/scan.c */
} PlaceAnswer;

extern Size queue_places_size(void);
extern void queue_places_startup(LWLock *lock);

extern bool queue_places_known(QueueId queue);
extern void queue_places_set_known(QueueId queue);

extern PlaceAnswer queue_places_reserve(QueueId queue, int64 shape, int32 tenant);
extern bool queue_places_put(QueueId queue, int64 shape, int32 tenant, const QueueKey *key,
							 bool found);
extern bool queue_places_room(QueueId queue, int64 shape, int32 tenant);

extern bool queue_places_refused(QueueId queue, TimestampTz since, int *at, int32 *tenant);
extern void queue_places_content(QueueId queue, int32 tenant);

extern bool queue_places_find(QueueId queue, int64 shape, ShapeView *view, bool for_scan);
extern bool queue_places_next(int *index, QueueId queue, ShapeView *view);
extern void queue_places_raise(const ShapeView *view, const ShapeBound *seen);
extern void queue_places_claimed(QueueId queue, int64 shape, int64 tag);

extern void queue_places_enter_set(CapabilityPlace *set);
extern int queue_places_candidates(CapabilityPlace *set, ShapeView **views, int64 **unknown,
								   int *n_unknown);
extern void queue_places_set_verdict(const CapabilityPlace *set, int64 shape, bool matches,
									 uint32 model);

#endif
