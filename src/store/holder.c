/*
 * store/holder.c
 *	  Who keeps a row from others: the open transaction that changed or locked the row.
 *
 * A transaction in which somebody called a function about a worker, or changed a pool, keeps
 * that row until it ends. The leader passes over what is kept and remembers it here; it waits for
 * a second in a cycle at most. An alert tells who keeps it. Where a machine would bill, or a task
 * would run, for as long as somebody likes, the session is ended at last, when the row is wanted
 * again. Reads the server's own views, and every table in which rows are kept.
 */
#include "postgres.h"

#include "base/guc.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid_d.h"
#include "db/direct.h"
#include "db/xact_part.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/worker.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Alerts that are raised at a time, of the rows that are kept the longest. */
#define MAX_CASES 100

/* How long an operator's call waits for a lock: longer than calls of workers take. */
#define PATIENCE (5 * USECS_PER_SEC)

/* How long the leader waits for a row that a call may have, and for rows in a whole cycle. */
#define SHORT_WAIT (100 * INT64CONST(1000))
#define WAIT_OF_CYCLE USECS_PER_SEC

/* How long a row is remembered that is not wanted again: cycles and the provider's lists may come seldom. */
#define WISH_LASTS (2 * guc_us(Max(guc_reconcile_interval, guc_cycle_interval)))

/* Locks on our tables that are looked at for the one that is in an operator's way. */
#define MAX_LOCKS 100

/* Sessions that were told to end: an event tells of each once. */
#define MAX_TOLD 64

typedef struct KeptKey
{
	int64 id;
	int64 kind; /* a KeptKind; there must be no byte that is not set */
} KeptKey;

/* A row that was kept when this process wanted it, by the server's clock. */
typedef struct Kept
{
	KeptKey key;
	TimestampTz since;	   /* when it was met first */
	TimestampTz wanted_at; /* when it was wanted last */
} Kept;

static HTAB *kept = NULL;
static int64 wait_left = WAIT_OF_CYCLE;

/* The tables, and how a row is named and found; and whether it is a worker's that is being ended. */
static const char *const tables[] = { "worker", "lease", "pool", "installation" };
static SpiQuery places[] = {
	{ "SELECT 'worker ' || id, ctid, state = 'terminating' FROM ONLY gpu_orch.worker WHERE no = $1" },
	{ "SELECT 'task ' || task_id, ctid, false FROM ONLY gpu_orch.lease WHERE task_id = $1" },
	{ "SELECT 'pool ' || name, ctid, false FROM ONLY gpu_orch.pool WHERE id = $1" },
	{ "SELECT 'the installation', ctid, false FROM ONLY gpu_orch.installation WHERE $1 = 0" },
};
/* How those are locked that are waited for, and how they are where nobody has them. */
static SpiQuery locks[] = {
	[KEPT_WORKER] = { "SELECT 1 FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE" },
	[KEPT_LEASE] = { "SELECT 1 FROM gpu_orch.lease WHERE task_id = $1 FOR UPDATE" },
	[KEPT_INSTALLATION] = { "SELECT 1 FROM gpu_orch.installation WHERE $1 = 0 FOR NO KEY UPDATE" },
};
static SpiQuery tries[] = {
	[KEPT_WORKER] = { "SELECT 1 FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE SKIP LOCKED" },
	[KEPT_LEASE] = { "SELECT 1 FROM gpu_orch.lease WHERE task_id = $1 FOR UPDATE SKIP LOCKED" },
	[KEPT_INSTALLATION] = { "SELECT 1 FROM gpu_orch.installation WHERE $1 = 0"
							" FOR NO KEY UPDATE SKIP LOCKED" },
};

/*
 * The open transaction, of another session, that has a row; invalid if there is none. Tells the holder
 * which row that is, in words allocated in the current memory context.
 */
static TransactionId
kept_by(KeptKind kind, int64 id, Holder *holder)
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
		holder->row = spi_text(0, 1);
		holder->ending = spi_bool(0, 3);
		place = *(ItemPointer) DatumGetPointer(spi_datum(0, 2, &isnull));
	}
	spi_end();
	return found ? direct_locked_by(tables[kind], &place, kind == KEPT_LEASE) :
				   InvalidTransactionId;
}

/*
 * Run a statement about the server's sessions as the server's own superuser: the owner of the
 * extension need not have the right to see or to end what others do. The statement must be a
 * constant that names nothing but pg_catalog. An error restores the user.
 */
static uint64
run_as_server(SpiQuery *query, SpiArgs *args, long limit)
{
	Oid user;
	int context;
	uint64 n;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	n = spi_read(query, args, limit);
	SetUserIdAndSecContext(user, context);
	return n;
}

/* A session in words. */
#define SESSION_TEXT \
	"pg_catalog.format('%s (application \"%s\", address %s) has been in a transaction since %s%s'," \
	" CASE WHEN a.usename IS NULL THEN pg_catalog.format('%s %s', a.backend_type, a.pid)" \
	"  ELSE pg_catalog.format('session %s of role \"%s\"', a.pid, a.usename) END," \
	" a.application_name, coalesce(pg_catalog.host(a.client_addr), 'local')," \
	" coalesce(a.xact_start::text, 'a time that the server does not tell')," \
	" CASE WHEN a.wait_event = 'SyncRep' THEN ', and waits for a standby' END)"

/*
 * Find who has a row. False if nobody has, or it cannot be told any more. Texts are allocated in
 * the current memory context.
 */
bool
store_holder_find(KeptKind kind, int64 id, Holder *holder)
{
	/* What waits for a standby has committed. */
	static SpiQuery session = {
		"SELECT coalesce(a.xact_start, $3), coalesce(r.rolsuper, false),"
		" coalesce(a.wait_event = 'SyncRep', false), " SESSION_TEXT
		" FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
		" WHERE a.pid = $1 AND a.backend_xid = $2"
	};
	static SpiQuery prepared = {
		"SELECT p.prepared, false, true, pg_catalog.format("
		"'the prepared transaction \"%s\" of role \"%s\" has waited since %s', p.gid, p.owner, p.prepared) "
		"FROM pg_catalog.pg_prepared_xacts p WHERE p.transaction = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	holder->xid = kept_by(kind, id, holder);
	if (!TransactionIdIsValid(holder->xid))
		return false;
	holder->pid = BackendXidGetPid(holder->xid);
	/* What this transaction has read of sessions before is of another time. */
	pgstat_clear_snapshot();
	spi_begin();
	if (holder->pid != 0)
		spi_arg_int4(&args, holder->pid);
	spi_arg(&args, XIDOID, TransactionIdGetDatum(holder->xid), false);
	if (holder->pid != 0)
		spi_arg_time(&args, GetCurrentTimestamp());
	found = run_as_server(holder->pid != 0 ? &session : &prepared, &args, 1) == 1;
	if (found)
	{
		holder->since = spi_time(0, 1);
		holder->superuser = spi_bool(0, 2);
		holder->stays = holder->superuser || spi_bool(0, 3);
		holder->text = spi_text(0, 4);
	}
	spi_end();
	return found;
}

/* Whether a session is told for the first time that its transaction ends. */
static bool
is_news(const Holder *holder)
{
	static struct
	{
		int pid;
		TransactionId xid;
	} told[MAX_TOLD];
	static int next = 0;

	for (int i = 0; i < MAX_TOLD; i++)
		if (told[i].pid == holder->pid && told[i].xid == holder->xid)
			return false;
	told[next].pid = holder->pid;
	told[next].xid = holder->xid;
	next = (next + 1) % MAX_TOLD;
	return true;
}

/* Whether something that is so since then has been so for longer than a row may be kept. */
static bool
is_overdue(TimestampTz since)
{
	return guc_row_lock_timeout != 0 &&
		GetCurrentTimestamp() - since >= guc_us(guc_row_lock_timeout);
}

/*
 * End the session of a holder that does not stay, if the session is in that transaction still; the
 * server undoes what the session did. A rollback of the caller does not undo that, and the event may
 * be in the way of a lock, so the server's log tells, too.
 */
static void
end_holder(const Holder *holder, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a"
		" WHERE a.pid = $1 AND a.backend_xid = $2"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool told;

	pgstat_clear_snapshot();
	spi_begin();
	spi_arg_int4(&args, holder->pid);
	spi_arg(&args, XIDOID, TransactionIdGetDatum(holder->xid), false);
	told = run_as_server(&query, &args, 1) == 1;
	spi_end();
	if (!told || !is_news(holder))
		return;
	ereport(LOG,
			(errmsg("gpu_orch: ended a session that kept %s", holder->row),
			 errdetail_log("%s.", holder->text)));
	(void) store_event_within(SHORT_WAIT / 1000, "holder_ended", holder->row,
							  store_detail("why", holder->text), now);
}

/* Lock the row of a key, and its table before it. */
static void
lock_row(void *arg)
{
	const KeptKey *key = arg;
	SpiArgs args = SPI_ARGS_INIT;

	spi_lock_for_write(tables[key->kind]);
	spi_begin();
	spi_arg_int8(&args, key->id);
	spi_run(&locks[key->kind], &args);
	spi_end();
}

/*
 * Lock a row, waiting in its queue until a time of the server's clock, for each lock that is in the
 * way. False if that was too long, or would have been for ever. The caller has run a statement of
 * ours before, so that the search_path is pinned.
 */
static bool
wait_until(KeptKind kind, int64 id, TimestampTz until)
{
	KeptKey key = { .id = id, .kind = kind };
	int64 ms = (until - GetCurrentTimestamp()) / 1000;

	return ms > 0 && xact_part_within(ms, lock_row, &key);
}

/* Lock a row, and its table before it, unless somebody keeps either. Waits for nobody. */
static bool
lock_if_free(KeptKind kind, int64 id)
{
	SpiArgs args = SPI_ARGS_INIT;
	bool locked;

	if (!spi_try_lock_for_write(tables[kind]))
		return false;
	spi_begin();
	spi_arg_int8(&args, id);
	locked = spi_run(&tries[kind], &args) == 1;
	spi_end();
	return locked;
}

/*
 * Lock a row for an operator, waiting until a time of the server's clock. False if somebody has the
 * row still. With ends, where the row must be had, the session of an overdue transaction is ended.
 */
bool
store_holder_gives(KeptKind kind, int64 id, TimestampTz until, bool ends, TimestampTz now)
{
	Holder holder;

	if (lock_if_free(kind, id))
		return true;
	if (ends && store_holder_find(kind, id, &holder) && !holder.stays && is_overdue(holder.since))
		end_holder(&holder, now);
	return wait_until(kind, id, until);
}

/* Raise 55P03 with who is in the way. */
static void
refuse(const char *what, const char *keeps, const char *text, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("%s cannot be changed now: %s", what, keeps),
			 text != NULL ? errdetail("%s.", text) : 0, errhint("%s", hint)));
}

/* Lock a row for an operator, or raise 55P03 with who keeps it; what is what the error names. */
void
store_holder_demand(KeptKind kind, int64 id, const char *what, bool ends, TimestampTz now)
{
	Holder holder = { 0 };
	bool found;

	if (store_holder_gives(kind, id, GetCurrentTimestamp() + PATIENCE, ends, now))
		return;
	found = store_holder_find(kind, id, &holder);
	refuse(what, "a transaction keeps its row", holder.text,
		   found && holder.pid == 0 ?
			   "The transaction ends with COMMIT PREPARED or ROLLBACK PREPARED." :
			   found && holder.superuser ?
			   "Wait for the transaction. Only a superuser may end a superuser's session." :
			   "Wait for the transaction. A member of pg_signal_backend may end its session with "
			   "pg_terminate_backend().");
}

/*
 * Do a part of an operator's call in which each lock is waited for as long as an operator waits;
 * 55P03 where that was too long: somebody locks one of our tables, or waits to lock it himself.
 */
void
store_holder_demand_locks(void (*work)(void *arg), void *arg, const char *what)
{
	static SpiQuery query = {
		"SELECT c.relname, " SESSION_TEXT " FROM pg_catalog.pg_locks l"
		" JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
		" JOIN pg_catalog.pg_class c ON c.oid = l.relation"
		" WHERE l.locktype = 'relation' AND c.relnamespace = $1 AND c.relkind = 'r'"
		" AND l.pid <> pg_catalog.pg_backend_pid()"
		" AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d"
		"  WHERE d.datname = pg_catalog.current_database())"
		" AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
		" ORDER BY l.granted DESC, l.waitstart"
	};
	SpiArgs args = SPI_ARGS_INIT;
	uint64 n;

	if (xact_part_within(PATIENCE / 1000, work, arg))
		return;
	spi_begin();
	spi_arg(&args, OIDOID, ObjectIdGetDatum(get_namespace_oid("gpu_orch", false)), false);
	n = run_as_server(&query, &args, MAX_LOCKS);
	for (uint64 i = 0; i < n; i++)
		/* A table that can be locked now is not in the way. */
		if (!spi_try_lock_for_write(spi_text(i, 1)))
			refuse(what, psprintf("the table gpu_orch.%s is locked", spi_text(i, 1)),
				   spi_text(i, 2),
				   "Wait for what changes the table, as REINDEX or ALTER TABLE, or end it.");
	refuse(what, "a transaction keeps rows of it", NULL,
		   "Try again, or look into pg_locks for who waits for whom.");
}

static void
lock_table(void *arg)
{
	spi_lock_for_write(arg);
}

/* Take the lock that writes to a kind's table need, for an operator. */
void
store_holder_demand_table(KeptKind kind, const char *what)
{
	store_holder_demand_locks(lock_table, unconstify(char *, tables[kind]), what);
}

/*
 * Remember a row that the leader wanted and somebody keeps. It is forgotten when nobody keeps
 * it, or the leader has not wanted it for a while.
 */
static Kept *
remember(KeptKind kind, int64 id)
{
	KeptKey key = { .id = id, .kind = kind };
	HASHCTL control = { .keysize = sizeof(KeptKey), .entrysize = sizeof(Kept) };
	Kept *row;
	bool known;

	if (kept == NULL)
		kept = hash_create("gpu_orch kept rows", 64, &control, HASH_ELEM | HASH_BLOBS);
	row = hash_search(kept, &key, HASH_ENTER, &known);
	row->wanted_at = GetCurrentTimestamp();
	if (!known)
		row->since = row->wanted_at;
	return row;
}

/* A row is not kept any more. */
static void
forget(KeptKind kind, int64 id)
{
	KeptKey key = { .id = id, .kind = kind };

	if (kept != NULL)
		(void) hash_search(kept, &key, HASH_REMOVE, NULL);
}

/* Remember a row that the leader would have liked to have, so that an alert tells of it. */
void
store_holder_note(KeptKind kind, int64 id)
{
	(void) remember(kind, id);
}

/* Wait for a row for a while, as far as this cycle's time for that goes. */
static bool
wait_a_little(KeptKind kind, int64 id, int64 most)
{
	TimestampTz begin = GetCurrentTimestamp();
	bool locked = wait_until(kind, id, begin + Min(most, wait_left));

	wait_left -= Max(0, Min(GetCurrentTimestamp() - begin, wait_left));
	return locked;
}

/*
 * Get a row that has been kept for too long. A transaction that is young is waited for first. Then
 * whoever has the row is ended, one after the other: sessions that take turns do not keep it either.
 */
static bool
insist(KeptKind kind, int64 id, TimestampTz now)
{
	bool waited = false;

	do
	{
		int64 most = SHORT_WAIT;
		Holder holder;

		if (store_holder_find(kind, id, &holder))
		{
			if (holder.stays)
				return false;
			if (waited || is_overdue(holder.since))
				end_holder(&holder, now);
			else if (wait_left < WAIT_OF_CYCLE / 2)
				/* Nobody is ended for being there at the end of a cycle's waiting. */
				return false;
			else
			{
				waited = true;
				most = WAIT_OF_CYCLE / 2;
			}
		}
		if (wait_a_little(kind, id, most))
			return true;
	} while (wait_left > SHORT_WAIT / 10);
	return false;
}

/*
 * Lock a row for the leader unless somebody keeps it. False then, and the row is remembered. One
 * that must be had and has been kept for too long, by whomever, is waited for a little, and the
 * session that has it is ended: where a worker or a lease is to be ended, the provider shows
 * something of a pod, or a leader begins.
 */
bool
store_holder_try(KeptKind kind, int64 id, bool must, TimestampTz now)
{
	Kept *row;

	if (lock_if_free(kind, id))
	{
		forget(kind, id);
		return true;
	}
	row = remember(kind, id);
	if (!must || !is_overdue(row->since) || !insist(kind, id, now))
		return false;
	forget(kind, id);
	return true;
}

/* The same for what is known only now, as an answer: a call that has the worker is waited for. */
bool
store_holder_try_now(int64 worker, TimestampTz now)
{
	return store_holder_try(KEPT_WORKER, worker, true, now) ||
		wait_a_little(KEPT_WORKER, worker, SHORT_WAIT);
}

/* Whether a worker's row was kept when this process wanted it last. */
bool
store_holder_kept(int64 worker)
{
	KeptKey key = { .id = worker, .kind = KEPT_WORKER };

	return kept != NULL && hash_search(kept, &key, HASH_FIND, NULL) != NULL;
}

static int
compare_since(const void *a, const void *b)
{
	TimestampTz left = ((const Kept *) a)->since;
	TimestampTz right = ((const Kept *) b)->since;

	return left < right ? -1 : left > right;
}

/* The rows that are remembered, those that are kept the longest first. */
static int
list_kept(Kept **rows)
{
	HASH_SEQ_STATUS scan;
	Kept *row;
	int n = 0;

	if (kept == NULL)
		return 0;
	*rows = palloc(Max(1, hash_get_num_entries(kept)) * sizeof(Kept));
	hash_seq_init(&scan, kept);
	while ((row = hash_seq_search(&scan)) != NULL)
		(*rows)[n++] = *row;
	qsort(*rows, n, sizeof(Kept), compare_since);
	return n;
}

/*
 * Look who keeps the rows that this process wanted, and forget those that nobody keeps now, or
 * that are not wanted any more. An alert tells of those that are kept for long.
 */
void
store_holder_watch(TimestampTz now)
{
	AlertCase cases[MAX_CASES];
	Kept *rows = NULL;
	int n = list_kept(&rows);
	int n_cases = 0;

	wait_left = WAIT_OF_CYCLE;
	for (int i = 0; i < n; i++)
	{
		Holder holder;

		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() - rows[i].wanted_at > WISH_LASTS ||
			!store_holder_find(rows[i].key.kind, rows[i].key.id, &holder))
		{
			forget(rows[i].key.kind, rows[i].key.id);
			continue;
		}
		/* What the provider answers about the end of a worker is not asked for in each cycle. */
		if (holder.ending && !holder.stays && is_overdue(rows[i].since) && is_overdue(holder.since))
			end_holder(&holder, now);
		if (n_cases < MAX_CASES &&
			GetCurrentTimestamp() - rows[i].since >= guc_us(guc_heartbeat_interval))
		{
			cases[n_cases].subject = holder.row;
			cases[n_cases++].detail = holder.text;
		}
	}
	store_alert_all(ALERT_ROW_KEPT, cases, n_cases, now);
}
