/*
 * store/worker.c
 *	  Workers: all access to worker and worker_profile.
 *
 * Every change of state goes through store_worker_move(), which locks the row,
 * asks the table of rules, and records the event; an illegal move changes
 * nothing. Of tokens only digests are kept.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "common/hashfn.h"
#include "db/direct.h"
#include "db/ext_guard.h"
#include "base/heard.h"
#include "base/inject.h"
#include "base/token.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/lease.h"
#include "store/worker.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

static bool
read_digest(uint64 row, int column, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);
	bytea *bytes;

	if (isnull)
		return false;
	bytes = DatumGetByteaPP(value);
	if (VARSIZE_ANY_EXHDR(bytes) != PG_SHA256_DIGEST_LENGTH)
		return false;
	memcpy(digest, VARDATA_ANY(bytes), PG_SHA256_DIGEST_LENGTH);
	return true;
}

static void
arg_digest(SpiArgs *args, const uint8 *digest)
{
	bytea *bytes = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	SET_VARSIZE(bytes, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	memcpy(VARDATA(bytes), digest, PG_SHA256_DIGEST_LENGTH);
	spi_arg(args, BYTEAOID, PointerGetDatum(bytes), false);
}

static WorkerState
read_state(uint64 row, int column)
{
	WorkerState state;

	if (!fsm_worker_state_parse(spi_text(row, column), &state))
		elog(ERROR, "gpu_orch: unknown worker state \"%s\"", spi_text(row, column));
	return state;
}

static WorkerOrigin
read_origin(uint64 row, int column)
{
	return strcmp(spi_text(row, column), "cloud") == 0 ? WO_CLOUD : WO_EXTERNAL;
}

#define ROW_COLUMNS \
	"no, id, origin, pool, state::text, epoch, capset, state_since, created_at, last_heartbeat," \
	" busy_at, session_digest"

static void
worker_read_row(WorkerRow *worker)
{
	worker->no = spi_int8(0, 1);
	worker->id = spi_text(0, 2);
	worker->origin = read_origin(0, 3);
	worker->pool = spi_int4(0, 4);
	worker->state = read_state(0, 5);
	worker->epoch = spi_int4(0, 6);
	worker->capset = spi_int8(0, 7);
	worker->state_since = spi_time(0, 8);
	worker->created_at = spi_time(0, 9);
	worker->last_heartbeat = Max(spi_time(0, 10), heard_at(worker->no));
	worker->busy_at = spi_time(0, 11);
	worker->has_session = read_digest(0, 12, worker->session_digest);
}

/* clang-format off */
#define WORKER_COLUMNS_OF_ROW(COLUMN, LATER) \
	COLUMN(WORKER_NO, no, INT8OID) \
	COLUMN(WORKER_ID, id, TEXTOID) \
	COLUMN(WORKER_ORIGIN, origin, TEXTOID) \
	COLUMN(WORKER_POOL, pool, INT4OID) \
	COLUMN(WORKER_STATE, state, TEXTOID) \
	COLUMN(WORKER_STATE_SINCE, state_since, TIMESTAMPTZOID) \
	COLUMN(WORKER_CREATED_AT, created_at, TIMESTAMPTZOID) \
	COLUMN(WORKER_EPOCH, epoch, INT4OID) \
	COLUMN(WORKER_SESSION_DIGEST, session_digest, BYTEAOID) \
	COLUMN(WORKER_CAPSET, capset, INT8OID) \
	COLUMN(WORKER_LAST_HEARTBEAT, last_heartbeat, TIMESTAMPTZOID) \
	COLUMN(WORKER_BUSY_AT, busy_at, TIMESTAMPTZOID)
/* clang-format on */

enum
{
	WORKER_COLUMN_0,
	WORKER_COLUMNS_OF_ROW(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn worker_columns[] = { WORKER_COLUMNS_OF_ROW(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable worker_table =
	DIRECT_TABLE("worker", worker_columns, .index_name = "worker_id", .index_key = { WORKER_ID },
				 .index_is_partial = true);

/*
 * Where workers' rows were found last, by their names' hashes: several times as many as the
 * workers that a pooler may bring to one session, so that few of them share a place.
 */
#define KNOWN_PLACES 8192

static bool
has_name(TupleTableSlot *row, const char *id, size_t length)
{
	bool isnull;
	text *name = DatumGetTextPP(direct_datum(&worker_table, row, WORKER_ID, &isnull));

	return VARSIZE_ANY_EXHDR(name) == length && memcmp(VARDATA_ANY(name), id, length) == 0;
}

static bool
read_call(TupleTableSlot *row, WorkerCall *worker)
{
	Datum value;
	bytea *digest;
	char *state;
	bool isnull;

	state = TextDatumGetCString(direct_datum(&worker_table, row, WORKER_STATE, &isnull));
	if (!fsm_worker_state_parse(state, &worker->state))
		elog(ERROR, "gpu_orch: unknown worker state \"%s\"", state);
	worker->no = direct_int8(&worker_table, row, WORKER_NO);
	worker->capset = direct_int8_or_0(&worker_table, row, WORKER_CAPSET);
	worker->busy_at = direct_int8_or_0(&worker_table, row, WORKER_BUSY_AT);
	value = direct_datum(&worker_table, row, WORKER_SESSION_DIGEST, &isnull);
	if (worker->state == WS_TERMINATED || isnull)
		return false;
	digest = DatumGetByteaPP(value);
	if (VARSIZE_ANY_EXHDR(digest) != PG_SHA256_DIGEST_LENGTH)
		return false;
	memcpy(worker->session_digest, VARDATA_ANY(digest), PG_SHA256_DIGEST_LENGTH);
	return true;
}

/*
 * Read the worker of that name for a call of its own, as far as WorkerCall goes, as it is
 * now: a statement that goes on for long, or a cursor, does not outlive the worker's session.
 * False if there is none that is not terminated, or it has no session. Takes no lock on the row.
 */
bool
store_worker_call(const char *id, WorkerCall *worker)
{
	static ItemPointerData places[KNOWN_PLACES];
	size_t length = strlen(id);
	ItemPointer place = &places[hash_any((const unsigned char *) id, length) % KNOWN_PLACES];
	Relation rel = direct_open(&worker_table);
	TupleTableSlot *row = direct_slot(&worker_table, rel);
	bool found;

	worker->id = id;
	found = ItemPointerIsValid(place) && direct_find_near(rel, SnapshotSelf, place, row) &&
		has_name(row, id, length) && read_call(row, worker);
	/* A row that is moved meanwhile may be missed by that, and may be by nothing else. */
	if (!found)
	{
		Snapshot snapshot = direct_snapshot();
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(id));
		found = direct_find(&worker_table, rel, snapshot, &key, 1, row, place) &&
			read_call(row, worker);
		direct_release(snapshot);
	}
	direct_slot_done(&worker_table, row);
	direct_close(rel);
	return found;
}

/*
 * The worker of that name which is not terminated; false if there is none. With
 * lock its row is locked until the end of the transaction.
 */
bool
store_worker_find(const char *id, bool lock, WorkerRow *worker)
{
	static SpiQuery plain = { "SELECT " ROW_COLUMNS
							  " FROM gpu_orch.worker WHERE id = $1 AND state <> 'terminated'" };
	static SpiQuery locking = { "SELECT " ROW_COLUMNS
								" FROM gpu_orch.worker WHERE id = $1 AND state <> 'terminated' "
								"FOR NO KEY UPDATE" };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	if (lock)
		spi_lock_for_write("worker");
	spi_begin();
	spi_arg_text(&args, id);
	found = spi_run(lock ? &locking : &plain, &args) == 1;
	if (found)
		worker_read_row(worker);
	spi_end();
	return found;
}

/*
 * When and for which cause the last worker of that name ended; false if none did. Reads
 * the table: for the text of an error only.
 */
bool
store_worker_ended(const char *id, TimestampTz *ended_at, char **cause)
{
	static SpiQuery query = {
		"SELECT w.state_since, p.ended_because FROM gpu_orch.worker w"
		" JOIN gpu_orch.worker_profile p ON p.worker = w.no"
		" WHERE w.id = $1 AND w.state = 'terminated' ORDER BY w.no DESC LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_text(&args, id);
	found = spi_read(&query, &args, 1) == 1;
	if (found)
	{
		*ended_at = spi_time(0, 1);
		*cause = spi_text(0, 2);
	}
	spi_end();
	return found;
}

/* Lock a worker by its number and read it afterwards; false if there is none. */
bool
store_worker_lock(int64 no, WorkerRow *worker)
{
	static SpiQuery query = { "SELECT " ROW_COLUMNS
							  " FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE" };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_lock_for_write("worker");
	spi_begin();
	spi_arg_int8(&args, no);
	found = spi_run(&query, &args) == 1;
	if (found)
		worker_read_row(worker);
	spi_end();
	return found;
}

/* The wide part of a worker, which every worker has. */
void
store_worker_profile(int64 no, WorkerProfile *profile)
{
	static SpiQuery query = { "SELECT pod_id, bound_pod_id, registration_digest, price_micros"
							  " FROM gpu_orch.worker_profile WHERE worker = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, no);
	spi_run_one(&query, &args, "reading a worker's profile");
	profile->pod_id = spi_text(0, 1);
	profile->bound_pod_id = spi_text(0, 2);
	profile->has_registration = read_digest(0, 3, profile->registration_digest);
	profile->price_micros = spi_int8(0, 4);
	spi_end();
}

/*
 * Add a worker. Returns its number, 0 if a live worker has the name: also one that another
 * transaction has just added, whose end is waited for.
 */
int64
store_worker_try_create(const char *id, WorkerOrigin origin, int32 pool, WorkerState state,
						TimestampTz now)
{
	static SpiQuery query = {
		"WITH w AS (INSERT INTO gpu_orch.worker (id, origin, pool, state, state_since, created_at)"
		"           VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (id)"
		"           WHERE state <> 'terminated' DO NOTHING RETURNING no) "
		"INSERT INTO gpu_orch.worker_profile (worker) SELECT no FROM w RETURNING worker"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 no;

	spi_begin();
	spi_arg_text(&args, id);
	spi_arg_text(&args, origin == WO_CLOUD ? "cloud" : "external");
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_text(&args, fsm_worker_state_name(state));
	spi_arg_time(&args, now);
	no = spi_run(&query, &args) == 1 ? spi_int8(0, 1) : 0;
	spi_end();
	return no;
}

/* Add a worker; a name that a live worker has is a 23505. Returns its number. */
int64
store_worker_create(const char *id, WorkerOrigin origin, int32 pool, WorkerState state,
					TimestampTz now)
{
	int64 no = store_worker_try_create(id, origin, pool, state, now);

	if (no == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("worker \"%s\" exists already", id)));
	return no;
}

/* How many external workers a role has registered that have not ended, counted up to a limit. */
int64
store_worker_count_of(const char *role, int64 limit)
{
	static SpiQuery query = {
		"SELECT count(*) FROM (SELECT 1 FROM gpu_orch.worker w"
		" JOIN gpu_orch.worker_profile p ON p.worker = w.no"
		" WHERE w.state <> 'terminated' AND p.registered_by = $1 LIMIT $2) x"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	if (ext_is_older_schema())
		return 0;
	spi_begin();
	spi_arg_text(&args, role);
	spi_arg_int8(&args, limit);
	spi_read(&query, &args, 1);
	n = spi_int8(0, 1);
	spi_end();
	return n;
}

/* Note which role made an external worker known. */
void
store_worker_set_registrar(int64 no, const char *role)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET registered_by = $2 WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	if (ext_is_older_schema())
		return;
	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_text(&args, role);
	spi_run_one(&query, &args, "noting who registered a worker");
	spi_end();
}

/*
 * Begin a new session of a worker: its epoch goes up, the token replaces the
 * last one, and what it says about itself is stored. The pod id, where given, is
 * bound until the provider shows another one.
 */
void
store_worker_register(const WorkerRow *worker, Jsonb *capabilities, int64 capset, int32 pool,
					  const char *pod_id, const char *token, TimestampTz now)
{
	static SpiQuery hot = {
		"UPDATE gpu_orch.worker SET epoch = epoch + 1, session_digest = $2, capset = $3, pool = $4,"
		" last_heartbeat = $5, busy_at = $5 WHERE no = $1"
	};
	static SpiQuery wide = {
		"UPDATE gpu_orch.worker_profile SET capabilities = $2, registered_at = $3,"
		" bound_pod_id = coalesce(bound_pod_id, $4), pod_id = coalesce(pod_id, $4)"
		" WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs wide_args = SPI_ARGS_INIT;
	uint8 digest[PG_SHA256_DIGEST_LENGTH];

	token_digest(token, digest);
	spi_begin();
	spi_arg_int8(&args, worker->no);
	arg_digest(&args, digest);
	spi_arg_int8(&args, capset);
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_time(&args, now);
	spi_run_one(&hot, &args, "registering a worker");
	spi_arg_int8(&wide_args, worker->no);
	spi_arg_jsonb(&wide_args, capabilities);
	spi_arg_time(&wide_args, now);
	spi_arg_text(&wide_args, pod_id);
	spi_run_one(&wide, &wide_args, "storing a worker's capabilities");
	spi_end();
}

/*
 * Note that a worker is alive; stats may be NULL. Waits for nobody: a row that somebody
 * else has locked is passed over, with the stats, and the time is kept in base/heard.c. So no
 * session has the wide part of a worker without the row.
 */
void
store_worker_heartbeat(int64 no, Jsonb *stats, TimestampTz now)
{
	static SpiQuery beat = {
		"UPDATE gpu_orch.worker SET last_heartbeat = $2 WHERE no ="
		" (SELECT no FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE SKIP LOCKED)"
	};
	static SpiQuery tell = { "UPDATE gpu_orch.worker_profile SET stats = $2 WHERE worker ="
							 " (SELECT worker FROM gpu_orch.worker_profile WHERE worker = $1"
							 "  FOR NO KEY UPDATE SKIP LOCKED)" };
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs stats_args = SPI_ARGS_INIT;
	bool written;

	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_time(&args, now);
	written = spi_run(&beat, &args) == 1;
	heard_note(no, !written, now);
	if (written && stats != NULL)
	{
		spi_arg_int8(&stats_args, no);
		spi_arg_jsonb(&stats_args, stats);
		spi_run(&tell, &stats_args);
	}
	spi_end();
}

/*
 * Note that a worker has just held a lease, for the count of its idle time. To
 * be called at most once a second for a worker; passes over a row that somebody
 * else has locked.
 */
void
store_worker_touch_busy(int64 no, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker SET busy_at = $2 WHERE no ="
		" (SELECT no FROM gpu_orch.worker WHERE no = $1 FOR NO KEY UPDATE SKIP LOCKED)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* What a worker said it offers; allocated in the current memory context. */
Jsonb *
store_worker_capabilities(int64 no)
{
	static SpiQuery query = {
		"SELECT capabilities FROM gpu_orch.worker_profile WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	struct varlena *value;
	Jsonb *copy;
	bool isnull;

	spi_begin();
	spi_arg_int8(&args, no);
	spi_run_one(&query, &args, "reading a worker's capabilities");
	value = PG_DETOAST_DATUM(spi_datum(0, 1, &isnull));
	copy = SPI_palloc(VARSIZE(value));
	memcpy(copy, value, VARSIZE(value));
	spi_end();
	return copy;
}

/* Set how many tasks a worker takes at once; the schema before has no place for it. */
void
store_worker_set_slots(int64 no, int32 slots)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET slots = $2 WHERE worker = $1 AND slots <> $2"
	};
	SpiArgs args = SPI_ARGS_INIT;

	if (ext_is_older_schema())
		return;
	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_int4(&args, slots);
	spi_run(&query, &args);
	spi_end();
}

/* How many tasks a worker said that it takes at once. */
int32
store_worker_slots(int64 no)
{
	static SpiQuery query = { "SELECT slots FROM gpu_orch.worker_profile WHERE worker = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	int32 slots;

	if (ext_is_older_schema())
		return 1;
	spi_begin();
	spi_arg_int8(&args, no);
	spi_run_one(&query, &args, "reading a worker's slots");
	slots = spi_int4(0, 1);
	spi_end();
	return slots;
}

/*
 * The active workers of no pool's that hold no lease, by what they offer. Returns how
 * many different sets there are; the array is allocated in the current memory context.
 */
int
store_worker_idle_external(IdleSet **sets)
{
	static SpiQuery query = {
		"SELECT w.capset, pg_catalog.min(w.no), pg_catalog.count(*) FROM gpu_orch.worker w"
		" WHERE w.state <> 'terminated' AND w.state = 'active' AND w.origin = 'external'"
		" AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no) GROUP BY w.capset"
	};
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	*sets = SPI_palloc((n + 1) * sizeof(IdleSet));
	for (int i = 0; i < n; i++)
		(*sets)[i] = (IdleSet){ .set = { .digest = spi_int8(i, 1), .worker = spi_int8(i, 2) },
								.workers = (int) spi_int8(i, 3) };
	spi_end();
	return n;
}

/* Set the digest of the token that a pod is about to be given. */
void
store_worker_set_registration(int64 no, const uint8 *digest)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET registration_digest = $2 WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, no);
	arg_digest(&args, digest);
	spi_run_one(&query, &args, "setting a registration token");
	spi_end();
}

/*
 * Put out whoever registered as a worker under another pod id than that of its pod: it was
 * somewhere else, with a copy of the pod's environment. The leases are no loss of their tasks, but
 * for those that he is about to end. The pod has yet to speak, if the worker is still wanted.
 */
static void
put_out(int64 no, const char *claimed, const char *pod_id, TimestampTz now)
{
	static SpiQuery hot = { "UPDATE gpu_orch.worker SET session_digest = NULL WHERE no = $1" };
	static SpiQuery wide = { "UPDATE gpu_orch.worker_profile SET bound_pod_id = NULL,"
							 " registered_at = NULL WHERE worker = $1" };
	LeaseEnd end = { .outcome = OUTCOME_RELEASED,
					 .error = "the worker was not in the pod that the provider shows" };
	char *why = psprintf("pod \"%s\" had registered, the provider shows \"%s\"", claimed, pod_id);
	SpiArgs args = SPI_ARGS_INIT;
	WorkerRow worker;

	if (!store_worker_lock(no, &worker))
		return;
	spi_begin();
	spi_arg_int8(&args, no);
	spi_run_one(&hot, &args, "ending a session");
	spi_run_one(&wide, &args, "forgetting a registration");
	spi_end();
	store_lease_end_all(LEASES_OF_WORKER, no, 0, (Datum) 0, &end, now);
	if (store_worker_move(no, "pod_rebound", why, now) == NULL)
		store_event("pod_rebound", worker.id, store_detail("why", why), now);
	store_alert(ALERT_POD_REBOUND, worker.id, why, now);
}

/*
 * Set what is known of a worker's pod; what is NULL or negative stays as it was. A pod id is the
 * provider's word, or the first registration's where the provider has said nothing yet.
 */
void
store_worker_set_pod(int64 no, const char *pod_id, const char *gpu_type, const char *data_center,
					 int64 price_micros, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET pod_id = coalesce($2, pod_id),"
		" gpu_type = coalesce($3, gpu_type), data_center = coalesce($4, data_center),"
		" price_micros = coalesce($5, price_micros) WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	WorkerProfile before = { 0 };

	if (pod_id != NULL)
		store_worker_profile(no, &before);
	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_text(&args, pod_id);
	spi_arg_text(&args, gpu_type);
	spi_arg_text(&args, data_center);
	spi_arg(&args, INT8OID, Int64GetDatum(price_micros), price_micros < 0);
	spi_run_one(&query, &args, "setting a worker's pod");
	spi_end();
	if (before.bound_pod_id != NULL && strcmp(before.bound_pod_id, pod_id) != 0)
		put_out(no, before.bound_pod_id, pod_id, now);
}

/*
 * Move a worker as the table of rules says for this cause. Returns the rule, or
 * NULL when the move is illegal from where the worker stands: then nothing has
 * changed. A worker that is ended loses its leases at once, and its session when
 * it is terminated; until then its heartbeats are told to stop.
 */
const WorkerRule *
store_worker_move(int64 no, const char *cause, const char *why, TimestampTz now)
{
	static SpiQuery move = {
		"UPDATE gpu_orch.worker SET state = $2, state_since = $3,"
		" session_digest = CASE WHEN $4 THEN NULL ELSE session_digest END WHERE no = $1"
	};
	static SpiQuery end_profile = {
		"UPDATE gpu_orch.worker_profile SET ended_because = $2 WHERE worker = $1"
	};
	static SpiQuery drain_profile = {
		"UPDATE gpu_orch.worker_profile SET draining_for = $2 WHERE worker = $1"
	};
	WorkerRow worker;
	const WorkerRule *rule;
	bool ends;

	if (!store_worker_lock(no, &worker))
		return NULL;
	rule = fsm_worker_find(worker.state, worker.origin, cause);
	if (rule == NULL)
		return NULL;
	if (rule->to == rule->from)
		return rule;

	INJECT("worker.move");
	ends = rule->to == WS_TERMINATING || rule->to == WS_TERMINATED;
	spi_begin();
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_arg_int8(&args, no);
		spi_arg_text(&args, fsm_worker_state_name(rule->to));
		spi_arg_time(&args, now);
		spi_arg_bool(&args, rule->to == WS_TERMINATED);
		spi_run_one(&move, &args, "moving a worker");
	}
	if (ends && rule->from != WS_TERMINATING)
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_arg_int8(&args, no);
		spi_arg_text(&args, why ? why : rule->cause);
		spi_run_one(&end_profile, &args, "noting why a worker ends");
	}
	if (rule->to == WS_DRAINING)
	{
		SpiArgs args = SPI_ARGS_INIT;

		spi_arg_int8(&args, no);
		spi_arg_text(&args, rule->cause);
		spi_run_one(&drain_profile, &args, "noting why a worker drains");
	}
	spi_end();
	INJECT("worker.moved");
	store_event_move(worker.id, no, rule, why, now);
	if (ends)
	{
		LeaseEnd end = { .outcome = OUTCOME_LOST, .error = rule->comment };

		INJECT("worker.ended");
		store_lease_end_all(LEASES_OF_WORKER, no, 0, (Datum) 0, &end, now);
	}
	return rule;
}

/*
 * Take over a worker's state. One that is none is noted, and the worker is then as one
 * that is being ended: it has a place, bills, is of no use, and nothing is done to it.
 */
static void
read_state_if_any(WorkerInfo *worker, uint64 row, int column)
{
	worker->state = WS_TERMINATING;
	worker->unreadable = NULL;
	if (!fsm_worker_state_parse(spi_text(row, column), &worker->state))
		worker->unreadable = spi_text(row, column);
}

/*
 * All workers that are not terminated, in the order of their numbers. Returns
 * how many; the array and its strings are allocated in the current context.
 */
int
store_worker_list(WorkerInfo **workers)
{
	static SpiQuery query = {
		"SELECT w.no, w.id, w.origin, w.pool, w.state::text, w.state_since, w.created_at,"
		" w.last_heartbeat, w.busy_at, coalesce(l.held, 0),"
		" EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND o.kind = 'create'"
		"         AND o.state IN ('planned', 'sent', 'unknown')),"
		" p.pod_id, p.price_micros, coalesce(p.draining_for IN ('idle', 'surplus'), false),"
		" coalesce(p.boot_expected, 0), coalesce(p.booted_in, 0), p.no_runtime,"
		" p.learned >= 2 OR coalesce(w.busy_at > p.registered_at, false),"
		" CASE WHEN w.busy_at > p.registered_at THEN 0 ELSE w.epoch END, p.passed_since "
		"FROM gpu_orch.worker w JOIN gpu_orch.worker_profile p ON p.worker = w.no "
		"LEFT JOIN (SELECT worker, count(*) AS held FROM gpu_orch.lease GROUP BY worker) l"
		" ON l.worker = w.no "
		"WHERE w.state <> 'terminated' ORDER BY w.no"
	};
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	*workers = SPI_palloc((n + 1) * sizeof(WorkerInfo));
	for (int i = 0; i < n; i++)
	{
		WorkerInfo *worker = &(*workers)[i];
		bool isnull;

		worker->no = spi_int8(i, 1);
		worker->id = spi_text(i, 2);
		worker->origin = read_origin(i, 3);
		worker->pool = spi_int4(i, 4);
		read_state_if_any(worker, i, 5);
		worker->state_since = spi_time(i, 6);
		worker->created_at = spi_time(i, 7);
		worker->last_heartbeat = Max(spi_time(i, 8), heard_at(worker->no));
		worker->busy_at = spi_time(i, 9);
		worker->held = spi_int8(i, 10);
		worker->create_open = spi_bool(i, 11);
		worker->pod_id = spi_text(i, 12);
		worker->price_micros = spi_int8(i, 13);
		worker->recallable = spi_bool(i, 14);
		worker->boot_expected = DatumGetFloat8(spi_datum(i, 15, &isnull));
		worker->booted_in = DatumGetFloat8(spi_datum(i, 16, &isnull));
		worker->no_runtime = spi_bool(i, 17);
		worker->claimed = spi_bool(i, 18);
		worker->registrations = spi_int4(i, 19);
		worker->passed_since = spi_time(i, 20);
	}
	spi_end();
	return n;
}

/* Note whether the provider shows a worker's pod running with nothing in it. */
void
store_worker_set_runtime(int64 no, bool missing)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET no_runtime = $2 WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, no);
	spi_arg_bool(&args, missing);
	spi_run_one(&query, &args, "noting a pod's runtime");
	spi_end();
}
