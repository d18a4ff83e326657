/*
 * store/holder.c
 *	  Who keeps a row from others: the open transaction that changed or locked the row.
 *
 * A transaction in which somebody called a function about a worker, or changed a pool, keeps
 * that row until it ends. The leader passes over what is kept and remembers it here; it waits for
 * a second in a cycle at most. An alert tells who keeps it. Where a machine would bill, or a task
 * would run, for as long as somebody likes, the session is ended at last. Reads the server's own
 * views, and every table in which rows are kept.
 */
#include "postgres.h"

#include "base/guc.h"
#include "db/direct.h"
#include "db/xact_part.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/worker.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "base/wake.h"

/* Rows that are remembered at a time; others are met again by the next step that wants them. */
#define MAX_KEPT 100

/* How long an operator's call waits for a row: longer than calls of workers take. */
#define PATIENCE (5 * USECS_PER_SEC)

/* How long the leader waits for a row that a call may have, and for rows in a whole cycle. */
#define SHORT_WAIT (100 * INT64CONST(1000))
#define WAIT_OF_CYCLE USECS_PER_SEC

/* A row that was kept when this process wanted it. */
typedef struct Kept
{
	KeptKind kind;
	int64 id;
	TimestampTz since; /* when it was met first, by the server's clock */
	bool must;		   /* somebody pays, or waits, until the row is free */
	bool stays;		   /* who keeps the row is never ended */
} Kept;

static Kept kept[MAX_KEPT];
static int n_kept = 0;
static int64 wait_left = WAIT_OF_CYCLE;

/* The tables, and how a row is named and found. */
static const char *const tables[] = { "worker", "lease", "pool", "installation" };
static SpiQuery places[] = {
	{ "SELECT id, ctid FROM gpu_orch.worker WHERE no = $1" },
	{ "SELECT 'task ' || task_id, ctid FROM gpu_orch.lease WHERE task_id = $1" },
	{ "SELECT 'pool ' || name, ctid FROM gpu_orch.pool WHERE id = $1" },
	{ "SELECT 'the installation', ctid FROM gpu_orch.installation WHERE $1 = 0" },
};
/* How those are locked that are waited for. */
static SpiQuery locks[] = {
	[KEPT_WORKER] = { "SELECT 1 FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE" },
	[KEPT_INSTALLATION] = { "SELECT 1 FROM gpu_orch.installation WHERE $1 = 0 FOR NO KEY UPDATE" },
};

/*
 * The open transaction, of another session, that has a row; invalid if there is none. *name, which
 * row that is, is allocated in the current memory context.
 */
static TransactionId
kept_by(KeptKind kind, int64 id, const char **name)
{
	SpiArgs args = SPI_ARGS_INIT;
	ItemPointerData place;
	bool isnull;
	bool found;

	spi_begin();
	spi_arg_int8(&args, id);
	found = spi_read(&places[kind], &args, 1) == 1;
	if (found)
	{
		*name = spi_text(0, 1);
		place = *(ItemPointer) DatumGetPointer(spi_datum(0, 2, &isnull));
	}
	spi_end();
	return found ? direct_locked_by(tables[kind], &place) : InvalidTransactionId;
}

/*
 * Find who has a row. False if nobody has, or it cannot be told any more. Texts are allocated in
 * the current memory context.
 */
bool
store_holder_find(KeptKind kind, int64 id, Holder *holder)
{
	static SpiQuery session = {
		"SELECT a.xact_start, coalesce(r.rolsuper, false), pg_catalog.format("
		"'session %s of role \"%s\" (application \"%s\", address %s) has been in a transaction since %s',"
		" a.pid, a.usename, a.application_name, coalesce(pg_catalog.host(a.client_addr), 'local'),"
		" a.xact_start) "
		"FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
		" WHERE a.pid = $1 AND a.backend_xid = $2 AND a.xact_start IS NOT NULL"
		/* one that waits for a standby has committed */
		" AND a.wait_event IS DISTINCT FROM 'SyncRep'"
	};
	static SpiQuery prepared = {
		"SELECT p.prepared, true, pg_catalog.format("
		"'the prepared transaction \"%s\" of role \"%s\" has waited since %s', p.gid, p.owner, p.prepared) "
		"FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	TransactionId xid = kept_by(kind, id, &holder->row);
	bool found;

	if (!TransactionIdIsValid(xid))
		return false;
	holder->pid = BackendXidGetPid(xid);
	/* What this transaction has read of sessions before is of another time. */
	pgstat_clear_snapshot();
	spi_begin();
	if (holder->pid != 0)
	{
		spi_arg_int4(&args, holder->pid);
		spi_arg(&args, XIDOID, TransactionIdGetDatum(xid), false);
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
 * End the session of a holder, if the row has been kept for too long since a time; the server
 * undoes what the session did. Superusers and prepared transactions are left alone. Returns whether
 * the session was told. A rollback of the caller does not undo that.
 */
static bool
end_overdue(const Holder *holder, TimestampTz since, TimestampTz now)
{
	static SpiQuery query = { "SELECT pg_catalog.pg_terminate_backend($1)" };
	/* The session that was told last: an event tells once of one that has many rows. */
	static int told_pid = 0;
	static TimestampTz told_since = 0;
	SpiArgs args = SPI_ARGS_INIT;

	if (guc_row_lock_timeout == 0 || holder->superuser ||
		GetCurrentTimestamp() - since < guc_us(guc_row_lock_timeout))
		return false;
	spi_begin();
	spi_arg_int4(&args, holder->pid);
	spi_read(&query, &args, 1);
	spi_end();
	if (holder->pid != told_pid || holder->since != told_since)
	{
		store_event("holder_ended", holder->row, store_detail("why", holder->text), now);
		wake_at_commit(WAKE_DECIDE);
	}
	told_pid = holder->pid;
	told_since = holder->since;
	return true;
}

/* A wait for a row. */
typedef struct Wait
{
	KeptKind kind;
	int64 id;
	int64 ms; /* for each lock that is in the way */
} Wait;

/* Lock the row of a wait; 55P03 where that takes too long. */
static void
lock_row(void *arg)
{
	const Wait *wait = arg;
	SpiArgs args = SPI_ARGS_INIT;
	int level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", psprintf(INT64_FORMAT, wait->ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	spi_begin();
	spi_arg_int8(&args, wait->id);
	spi_run(&locks[wait->kind], &args);
	spi_end();
	AtEOXact_GUC(true, level);
}

/*
 * Lock a row, waiting in its queue until a time of the server's clock, for each lock that is in the
 * way. False if that was too long. The caller has run a statement of ours before, so that the
 * search_path is pinned.
 */
static bool
wait_until(KeptKind kind, int64 id, TimestampTz until)
{
	Wait wait = { .kind = kind, .id = id, .ms = (until - GetCurrentTimestamp()) / 1000 };
	ErrorData *error;

	if (wait.ms <= 0)
		return false;
	if (LockTimeout > 0)
		wait.ms = Min(wait.ms, LockTimeout);
	spi_lock_for_write(tables[kind]);
	error = xact_part(lock_row, &wait);
	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	return error == NULL;
}

/*
 * Lock a row for an operator, waiting until a time of the server's clock. False if somebody has the
 * row still. With ends, where the row must be had, an overdue session is ended.
 */
bool
store_holder_gives(KeptKind kind, int64 id, TimestampTz until, bool ends, TimestampTz now)
{
	Holder holder;

	if (kind == KEPT_WORKER && store_worker_is_free(id))
		return true;
	if (ends && store_holder_find(kind, id, &holder))
		(void) end_overdue(&holder, holder.since, now);
	return wait_until(kind, id, until);
}

/* Lock a row for an operator, or raise 55P03 with who keeps it; what is what the error names. */
void
store_holder_demand(KeptKind kind, int64 id, const char *what, bool ends, TimestampTz now)
{
	Holder holder;
	bool found;

	if (store_holder_gives(kind, id, GetCurrentTimestamp() + PATIENCE, ends, now))
		return;
	found = store_holder_find(kind, id, &holder);
	ereport(
		ERROR,
		(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
		 errmsg("%s cannot be changed now: a transaction keeps its row", what),
		 found ? errdetail("%s.", holder.text) : 0,
		 found && holder.pid == 0 ?
			 errhint("The transaction ends with COMMIT PREPARED or ROLLBACK PREPARED.") :
			 errhint("Wait for the transaction. A member of pg_signal_backend may end its session "
					 "with pg_terminate_backend().")));
}

/*
 * A place for one more row; for one that must be had also that of one that need not be, or whose
 * holder stays. -1: none.
 */
static int
free_place(bool must)
{
	if (n_kept < MAX_KEPT)
		return n_kept++;
	for (int i = 0; i < n_kept; i++)
		if (must && (!kept[i].must || kept[i].stays))
			return i;
	return -1;
}

/* A row is not kept any more. */
static void
forget(KeptKind kind, int64 id)
{
	for (int i = 0; i < n_kept; i++)
		if (kept[i].kind == kind && kept[i].id == id)
		{
			kept[i] = kept[--n_kept];
			return;
		}
}

/* Remember a row that is kept; NULL where there is no place for it. */
static Kept *
remember(KeptKind kind, int64 id, bool must)
{
	int place = 0;

	while (place < n_kept && (kept[place].kind != kind || kept[place].id != id))
		place++;
	if (place == n_kept)
	{
		place = free_place(must);
		if (place < 0)
			return NULL;
		kept[place] = (Kept){ .kind = kind, .id = id, .since = GetCurrentTimestamp() };
	}
	kept[place].must |= must;
	return &kept[place];
}

/*
 * Remember a row that the leader wanted and somebody keeps. With must, the session is ended at
 * last: where a worker or a lease is to be ended, or the provider shows something of a pod. What
 * is only not wanted any more, or a person's, is told of.
 */
void
store_holder_note(KeptKind kind, int64 id, bool must)
{
	(void) remember(kind, id, must);
}

/* Wait for a worker for a while, as far as this cycle's time for that goes. */
static bool
wait_a_little(int64 worker, int64 most)
{
	TimestampTz begin = GetCurrentTimestamp();
	bool locked = wait_until(KEPT_WORKER, worker, begin + Min(most, wait_left));

	wait_left -= Min(GetCurrentTimestamp() - begin, wait_left);
	return locked;
}

/*
 * Lock a worker's row unless somebody keeps it. False then, and the worker is remembered. One that
 * must be had and has been kept for too long, by whomever, is waited for a little.
 */
bool
store_holder_try(int64 worker, bool must, TimestampTz now)
{
	Kept *row;
	Holder holder;

	if (store_worker_is_free(worker))
	{
		forget(KEPT_WORKER, worker);
		return true;
	}
	row = remember(KEPT_WORKER, worker, must);
	return row != NULL && row->must && wait_left > 0 &&
		store_holder_find(row->kind, row->id, &holder) && end_overdue(&holder, row->since, now) &&
		wait_a_little(worker, WAIT_OF_CYCLE);
}

/* The same for what is known only now, as an answer: a call that has the row is waited for. */
bool
store_holder_try_now(int64 worker, TimestampTz now)
{
	return store_holder_try(worker, true, now) || wait_a_little(worker, SHORT_WAIT);
}

/* Whether a worker's row was kept when this process wanted it last. */
bool
store_holder_kept(int64 worker)
{
	for (int i = 0; i < n_kept; i++)
		if (kept[i].kind == KEPT_WORKER && kept[i].id == worker)
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
	Kept still[MAX_KEPT];
	int n_cases = 0;
	int n = 0;

	wait_left = WAIT_OF_CYCLE;
	for (int i = 0; i < n_kept; i++)
	{
		Holder holder;

		if (!store_holder_find(kept[i].kind, kept[i].id, &holder))
			continue;
		still[n] = kept[i];
		still[n].stays = holder.superuser;
		if (GetCurrentTimestamp() - still[n].since >= guc_us(guc_heartbeat_interval))
		{
			cases[n_cases].subject = holder.row;
			cases[n_cases++].detail = holder.text;
		}
		if (still[n].must)
			(void) end_overdue(&holder, still[n].since, now);
		n++;
	}
	memcpy(kept, still, n * sizeof(Kept));
	n_kept = n;
	store_alert_all(ALERT_ROW_KEPT, cases, n_cases, now);
}
