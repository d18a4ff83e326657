/*
 * queue/ring.h
 *	  The next tasks for each capability set, found by one claimer for many.
 */
#ifndef GPU_ORCH_QUEUE_RING_H
#define GPU_ORCH_QUEUE_RING_H

#include "queue/places.h"
#include "storage/itemptr.h"

#define RING_SIZE 256

/* A row that was claimable when it was found. */
typedef struct RingEntry
{
	QueueKey key;
	int64 shape;
	ItemPointerData tid;
	uint32 model; /* digest of the model that its shape asks for; 0: none */
	int passed;	  /* times that a later one was preferred */
} RingEntry;

/* A ring as one claimer knows it. */
typedef struct Ring
{
	CapabilityPlace set; /* the ring has the same index */
	int filling;		 /* place that this claimer fills; another ring may have it by now */
	uint64 fill;		 /* the number of that fill */
	long patience;		 /* ms that this claimer goes on waiting for others' fills */
} Ring;

typedef enum RingAnswer
{
	RING_TOOK,
	RING_EMPTY, /* nothing is claimable */
	RING_FILL	/* not known: look into the index */
} RingAnswer;

typedef enum FillAnswer
{
	FILL_BEGUN,
	FILL_OTHERS, /* somebody else has filled it, or its place went: ask again */
	FILL_BUSY	 /* somebody else is at it for too long: look for yourself alone */
} FillAnswer;

extern Size queue_ring_size(void);
extern void queue_ring_startup(LWLock *prepared_lock, LWLockPadded *locks);

extern void queue_ring_init(Ring *ring, QueueId queue, int64 capset);
extern RingAnswer queue_ring_pop(Ring *ring, uint32 model, RingEntry *entry);
extern void queue_ring_missed(Ring *ring);
extern FillAnswer queue_ring_begin_fill(Ring *ring, int *want);
extern bool queue_ring_end_fill(Ring *ring, const RingEntry *entries, int n, bool all,
								bool settled);
extern void queue_ring_abandon_fill(Ring *ring);
extern void queue_ring_watch(QueueId queue, const QueueKey *first, TransactionId xid);
extern void queue_ring_disturb(QueueId queue, const QueueKey *key);

extern uint32 queue_ring_warm_model(int64 worker);
extern void queue_ring_set_warm_model(int64 worker, uint32 model);

#endif
