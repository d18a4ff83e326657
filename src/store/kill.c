/*
 * store/kill.c
 *	  The end of the whole fleet: every worker with a pod, known or in doubt.
 *
 * Only announces: the deletes are sent like any other. Pods that no row knows are
 * found by the lists that come, which is leader/reconcile.c's.
 */
#include "postgres.h"

#include "db/xact_part.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/installation.h"
#include "store/kill.h"
#include "store/op.h"
#include "utils/timestamp.h"

/* How long rows that somebody has are waited for in all: longer than calls of workers take. */
#define FLEET_PATIENCE USECS_PER_SEC

/* How long any lock is waited for, in milliseconds. */
#define TABLE_PATIENCE 5000

/* The same, to say what is left to do: who has met a lock for so long meets it again. */
#define TELL_PATIENCE 100

/* Count the pods that are owed a delete that is not proved. */
static void
count_owed(void *arg)
{
	static SpiQuery query = {
		"SELECT count(*) FROM gpu_orch.cloud_op"
		" WHERE kind = 'delete' AND state IN ('planned', 'sent', 'unknown')"
	};
	int64 *n = arg;

	spi_begin();
	spi_read(&query, NULL, 1);
	*n = spi_int8(0, 1);
	spi_end();
}

/* Tell that workers are still to be ended, and what keeps the first of them. */
static void
warn_of_kept(int64 worker, int n)
{
	Holder holder;
	bool found = store_holder_find(KEPT_WORKER, worker, &holder);

	ereport(WARNING,
			(errmsg_plural("%d worker is not ended yet: a transaction keeps its row, or a table",
						   "%d workers are not ended yet: transactions keep their rows, or a table",
						   n, n),
			 found ? errdetail("The %s: %s.", holder.row, holder.text) : 0,
			 errhint("The leader ends them as soon as it can.")));
}

/* Whether the end of the fleet is to end a worker. One whose row cannot be read has its alert. */
bool
store_kill_concerns(const WorkerInfo *worker)
{
	return worker->origin == WO_CLOUD && worker->unreadable == NULL &&
		worker->state != WS_TERMINATING;
}

/* The end of the workers, in a call. */
typedef struct Kill
{
	TimestampTz now;
	int n_kept;
	int64 kept; /* the first of them */
} Kill;

/* End every worker whose row is free, or becomes so, and announce the deletes. */
static void
end_workers(void *arg)
{
	Kill *kill = arg;
	TimestampTz until = GetCurrentTimestamp() + FLEET_PATIENCE;
	WorkerInfo *workers;
	int n;

	spi_lock_for_write("worker");
	n = store_worker_list(&workers);
	for (int i = 0; i < n; i++)
	{
		if (!store_kill_concerns(&workers[i]))
			continue;
		if (store_holder_gives(KEPT_WORKER, workers[i].no, until, true, kill->now))
			(void) store_worker_move(workers[i].no, "kill", NULL, kill->now);
		else if (kill->n_kept++ == 0)
			kill->kept = workers[i].no;
	}
	store_op_plan_owed_deletes(kill->now);
}

/* Tell of all workers that they are left to the leader: one of the tables cannot be written to now. */
static void
leave_all(void *arg)
{
	WorkerInfo *workers;
	int n = store_worker_list(&workers);
	int64 kept = 0;
	int n_kept = 0;

	for (int i = 0; i < n; i++)
		if (store_kill_concerns(&workers[i]) && n_kept++ == 0)
			kept = workers[i].no;
	if (n_kept > 0)
		warn_of_kept(kept, n_kept);
}

/*
 * Stop creating, end every cloud worker, and announce a delete for each pod that is
 * known. Returns how many deletes are owed, older ones included; -1 where a table is locked so that
 * they cannot be counted. Locks the installation, or raises 55P03 if somebody keeps it, then the
 * workers. A worker whose row a transaction keeps is left to the leader, so that no session keeps the
 * others alive; so are all where a table is locked for as long as an operator waits. A WARNING tells of
 * both. No event tells of the call where the events are locked.
 */
int64
store_kill_fleet(TimestampTz now)
{
	Kill kill = { .now = now };
	int64 owed = -1;

	store_holder_demand(KEPT_INSTALLATION, 0, "the fleet", true, now);
	store_installation_kill(now);
	if (store_event_within(TABLE_PATIENCE, "fleet_killed", "installation", NULL, now) &&
		xact_part_within(TABLE_PATIENCE, end_workers, &kill))
	{
		if (kill.n_kept > 0)
			warn_of_kept(kill.kept, kill.n_kept);
	}
	else if (!xact_part_within(TELL_PATIENCE, leave_all, NULL))
		ereport(WARNING,
				(errmsg("no worker is ended yet: a table of gpu_orch is locked"),
				 errhint("The leader ends the workers as soon as it can.")));
	(void) xact_part_within(TELL_PATIENCE, count_owed, &owed);
	return owed;
}
