/*
 * queue/ring.h
 *	  The next tasks for each capability set, found by one claimer for many.
 */
#ifndef GPU_ORCH_QUEUE_RING_H
#define GPU_ORCH_QUEUE_RING_H

#include "queue/bound.h"
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
	QueueId queue;
	int64 capset;
	int index;	 /* of its place; -1: not looked up */
	int filling; /* place that is being filled; another ring may have it by now */
} Ring;

typedef enum RingAnswer
{
	RING_TOOK,
	RING_EMPTY, /* nothing is claimable */
	RING_FILL	/* not known: look into the index */
} RingAnswer;

typedef enum Verdict
{
	VERDICT_UNKNOWN,
	VERDICT_NO,
	VERDICT_YES
} Verdict;

extern Size queue_ring_size(void);
extern void queue_ring_startup(LWLock *lock, LWLockPadded *fill_locks);

extern RingAnswer queue_ring_pop(Ring *ring, uint32 model, RingEntry *entry);
extern void queue_ring_missed(Ring *ring);
extern bool queue_ring_begin_fill(Ring *ring, int *want);
extern void queue_ring_end_fill(Ring *ring, const RingEntry *entries, int n, bool all,
								bool settled);
extern void queue_ring_abandon_fill(Ring *ring);
extern int queue_ring_candidates(Ring *ring, ShapeView **views, int64 **unknown, int *n_unknown);
extern void queue_ring_set_verdict(Ring *ring, int64 shape, bool matches, uint32 model);
extern void queue_ring_watch(QueueId queue, const QueueKey *first, TransactionId xid);
extern void queue_ring_disturb(QueueId queue, const QueueKey *key);

extern uint32 queue_ring_warm_model(int64 worker);
extern void queue_ring_set_warm_model(int64 worker, uint32 model);

#endif
