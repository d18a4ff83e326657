/*
 * store/holder.c
 *	  Who keeps a worker's row from others: the open transaction that changed or locked it.
 *
 * A transaction in which a worker, or somebody about a worker, called a function keeps the
 * worker's row until it ends. Nobody can end the worker meanwhile. The leader waits for no
 * transaction of anybody: it passes over a worker whose row is kept, remembers it here, and ends
 * the session at last, as a machine that is no longer wanted must not bill for as long as it
 * likes. Reads the server's own views; the row is read by store/worker.c.
 */
#include "postgres.h"

#include "base/guc.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/worker.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "base/wake.h"

/* Time between two looks whether a row is free, in milliseconds. */
#define LOOK_MS 10

/*
 * Find who has a worker's row. False if nobody has, or it cannot be told any more. Texts are
 * allocated in the current memory context.
 */
bool
store_holder_find(int64 worker, Holder *holder)
{
	static SpiQuery session = {
		"SELECT a.xact_start, r.rolsuper, pg_catalog.format("
		"'session %s of role \"%s\" (application \"%s\", address %s) has been in a transaction since %s',"
		" a.pid, a.usename, a.application_name, coalesce(pg_catalog.host(a.client_addr), 'local'),"
		" a.xact_start) "
		"FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
		" WHERE a.pid = $1 AND a.xact_start IS NOT NULL"
	};
	static SpiQuery prepared = {
		"SELECT p.prepared, true, pg_catalog.format("
		"'the prepared transaction \"%s\" of role \"%s\" has waited since %s', p.gid, p.owner, p.prepared) "
		"FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	TransactionId xid = store_worker_locked_by(worker, &holder->worker_id);
	bool found;

	if (!TransactionIdIsValid(xid))
		return false;
	holder->pid = BackendXidGetPid(xid);
	spi_begin();
	if (holder->pid != 0)
	{
		spi_arg_int4(&args, holder->pid);
		found = spi_read(&session, &args, 1) == 1;
	}
	else
	{
		spi_arg(&args, XIDOID, TransactionIdGetDatum(xid), false);
		found = spi_read(&prepared, &args, 1) == 1;
	}
	if (found)
	{
		holder->since = spi_time(0, 1);
		holder->superuser = spi_bool(0, 2);
		holder->text = spi_text(0, 3);
	}
	spi_end();
	return found;
}

/*
 * End the session of a holder that keeps a worker from being ended, if its time is over; the server
 * undoes what the session did. Superusers and prepared transactions are left alone. Returns whether
 * the session was told.
 */
bool
store_holder_end_overdue(const Holder *holder, TimestampTz now)
{
	static SpiQuery query = { "SELECT pg_catalog.pg_terminate_backend($1)" };
	SpiArgs args = SPI_ARGS_INIT;

	if (guc_worker_lock_timeout == 0 || holder->superuser ||
		GetCurrentTimestamp() - holder->since < guc_us(guc_worker_lock_timeout))
		return false;
	spi_begin();
	spi_arg_int4(&args, holder->pid);
	spi_read(&query, &args, 1);
	spi_end();
	store_event("holder_ended", holder->worker_id, store_detail("why", holder->text), now);
	return true;
}

/*
 * Lock a worker's row, waiting for whoever has it until a time of the server's clock. False if
 * somebody has it still. With ends, where the worker is to be ended, an overdue session is ended.
 */
bool
store_holder_gives(int64 worker, TimestampTz until, bool ends, TimestampTz now)
{
	Holder holder;

	if (store_worker_is_free(worker))
		return true;
	if (ends && store_holder_find(worker, &holder))
		(void) store_holder_end_overdue(&holder, now);
	while (GetCurrentTimestamp() < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (store_worker_is_free(worker))
			return true;
	}
	return false;
}

/* Workers that are remembered at a time; others are met again by the next step that wants them. */
#define MAX_KEPT 100

/* A worker whose row was kept when this process wanted it. */
typedef struct Kept
{
	int64 worker;
	bool must; /* somebody pays, or is misled, until the row is free */
} Kept;

static Kept kept[MAX_KEPT];
static int n_kept = 0;

/*
 * Lock a worker's row unless somebody keeps it. False then, and the worker is remembered. With
 * must, the session that keeps the row is ended at last: where the worker is to be ended, or the
 * provider shows something of its pod. A worker that is only wanted no more may finish its
 * transaction.
 */
bool
store_holder_try(int64 worker, bool must)
{
	int i = 0;

	if (store_worker_is_free(worker))
		return true;
	while (i < n_kept && kept[i].worker != worker)
		i++;
	if (i == n_kept && n_kept < MAX_KEPT)
		kept[n_kept++] = (Kept){ .worker = worker };
	if (i < n_kept)
		kept[i].must |= must;
	return false;
}

/* Whether a worker's row was kept when this process wanted it last. */
bool
store_holder_kept(int64 worker)
{
	for (int i = 0; i < n_kept; i++)
		if (kept[i].worker == worker)
			return true;
	return false;
}

/*
 * Look who keeps the rows that this process wanted, and forget those that nobody keeps now. An
 * alert tells of those that are kept for long; sessions that are overdue are ended, where they must.
 */
void
store_holder_watch(TimestampTz now)
{
	AlertCase cases[MAX_KEPT];
	int n_cases = 0;
	int n = 0;

	for (int i = 0; i < n_kept; i++)
	{
		Holder holder;

		if (!store_holder_find(kept[i].worker, &holder))
			continue;
		kept[n++] = kept[i];
		if (GetCurrentTimestamp() - holder.since < guc_us(guc_heartbeat_interval))
			continue;
		cases[n_cases].subject = holder.worker_id;
		cases[n_cases++].detail = holder.text;
		if (kept[n - 1].must && store_holder_end_overdue(&holder, now))
			wake_at_commit(WAKE_DECIDE);
	}
	n_kept = n;
	store_alert_all(ALERT_WORKER_LOCKED, cases, n_cases, now);
}
