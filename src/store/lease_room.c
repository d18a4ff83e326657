/*
 * store/lease_room.c
 *	  How many more leases a worker may take, before they are counted again.
 *
 * Each session keeps the room of the workers that claim by it: what it claims is taken off, and
 * what it ends is put back when that has committed. So a worker that ends what it claims is
 * counted once. Sessions count apart: together they may pass a worker's limit by what each of
 * them still has.
 */
#include "postgres.h"

#include "access/xact.h"
#include "store/lease.h"
#include "store/lease_room.h"
#include "store/worker.h"

/*
 * How many leases a worker may hold for each task that it takes at once, since those of a
 * lost answer still count until its next heartbeat; and how many in any case.
 */
#define LEASES_PER_SLOT 2
#define LEAST_LEASES 200

typedef struct LeaseRoom
{
	int64 worker;
	uint64 session; /* of the worker: the begin of its digest. A later one may have other slots */
	int32 most;
	int32 room;
} LeaseRoom;

#define LEASE_ROOMS 1024
static LeaseRoom rooms[LEASE_ROOMS];

/* What this transaction did for the worker that it was about last. */
static struct
{
	int64 worker;
	int32 ended;  /* since the last count */
	bool counted; /* its leases, as this transaction sees them */
} done;

static LeaseRoom *
place_of(int64 worker)
{
	return &rooms[(uint64) worker % LEASE_ROOMS];
}

/* What was ended does not count, as it may be rolled back; a count that has seen that is forgotten. */
static void
forget(void)
{
	if (done.counted)
		place_of(done.worker)->worker = 0;
	done.counted = false;
	done.ended = 0;
}

static void
at_end(XactEvent event, void *arg)
{
	LeaseRoom *place;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			place = place_of(done.worker);
			if (place->worker == done.worker)
				place->room = Min(place->room + done.ended, place->most);
			done.counted = false;
			done.ended = 0;
			return;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget();
			return;
		default:
			return;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget();
}

static void
do_for(int64 worker)
{
	if (worker != done.worker)
		forget();
	done.worker = worker;
}

/* Register the transaction callbacks. To be called once, from _PG_init. */
void
store_lease_room_init(void)
{
	RegisterXactCallback(at_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* How many of n leases a worker may take; counts those that it holds where less than n is known. */
int
store_lease_room(const WorkerCall *worker, int n)
{
	LeaseRoom *place = place_of(worker->no);
	uint64 session;

	memcpy(&session, worker->session_digest, sizeof(session));
	if (place->worker != worker->no || place->session != session || place->room < n)
	{
		do_for(worker->no);
		done.counted = true;
		done.ended = 0;
		place->worker = worker->no;
		place->session = session;
		place->most = (int32) Max(LEASES_PER_SLOT * store_worker_slots(worker->no), LEAST_LEASES);
		place->room = (int32) (place->most - store_lease_count_worker(worker->no, place->most));
	}
	return Min(n, place->room);
}

/* A worker took n of the leases that store_lease_room() allowed. */
void
store_lease_room_claimed(int64 worker, int n)
{
	LeaseRoom *place = place_of(worker);

	if (place->worker == worker)
		place->room -= n;
}

/* A lease of a worker ended, by a call of that worker. */
void
store_lease_room_ended(int64 worker)
{
	do_for(worker);
	done.ended++;
}
