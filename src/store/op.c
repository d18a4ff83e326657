/*
 * store/op.c
 *	  The journal of calls to the provider: access to cloud_op.
 *
 * A create is planned, sent once, and settled once; no function here sends a create
 * again. A delete is a debt: its op stays open, with the number of tries and the time of
 * the next one, until the provider shows the pod gone. Rows stay as long as their worker, which
 * store/retention.c removes a year later: a settled create is a tombstone, by which a pod that
 * shows up late is recognized. store/sight.c
 * keeps what looks showed of the pods of open ops; store/clock.c moves their times when
 * a clock was set.
 */
#include "postgres.h"

#include "base/caller.h"
#include "base/inject.h"
#include "miscadmin.h"
#include "decide/pod_name.h"
#include "store/alert.h"
#include "store/installation.h"
#include "store/op.h"
#include "utils/builtins.h"

static const char *const state_names[] = {
	"planned", "sent", "unknown", "done", "refused", "absent"
};

/* 130 random bits in 26 characters. */
static void
make_nonce(char nonce[POD_NONCE_LENGTH + 1])
{
	uint8 bits[POD_NONCE_LENGTH];

	if (!pg_strong_random(bits, sizeof(bits)))
		elog(ERROR, "gpu_orch: could not obtain random bits");
	for (int i = 0; i < POD_NONCE_LENGTH; i++)
		nonce[i] = POD_NONCE_ALPHABET[bits[i] & 31];
	nonce[POD_NONCE_LENGTH] = '\0';
}

/* The name of the pod of an op: gpo-<installation>-<its epoch>-<nonce>. */
char *
store_op_pod_name(const Installation *installation, const char *nonce)
{
	return psprintf(POD_NAME_PREFIX "%.*s-%d-%s", INSTALLATION_SHORT, installation->id,
					installation->epoch, nonce);
}

#define OP_COLUMNS \
	"id, kind, state::text, worker, pool, offer, nonce, pod_name, pod_id, gpu_type, data_center," \
	" price_micros, epoch, tries, due_at, planned_at, sent_at, answered_at, absent_looks," \
	" absent_since, http_status, verified, price_assumed, gpu_count, cloud_type, denied_at"

static void
read_op(CloudOpRow *op, uint64 row)
{
	char *state = spi_text(row, 3);

	op->id = spi_int8(row, 1);
	op->kind = strcmp(spi_text(row, 2), "create") == 0 ? OP_CREATE : OP_DELETE;
	op->state = OP_PLANNED;
	for (int i = 0; i < lengthof(state_names); i++)
		if (strcmp(state_names[i], state) == 0)
			op->state = (OpState) i;
	op->worker = spi_int8(row, 4);
	op->pool = spi_int4(row, 5);
	op->offer = spi_int8(row, 6);
	op->nonce = spi_text(row, 7);
	op->pod_name = spi_text(row, 8);
	op->pod_id = spi_text(row, 9);
	op->gpu_type = spi_text(row, 10);
	op->data_center = spi_text(row, 11);
	op->price_micros = spi_int8(row, 12);
	op->epoch = spi_int8(row, 13);
	op->tries = spi_int4(row, 14);
	op->due_at = spi_time(row, 15);
	op->planned_at = spi_time(row, 16);
	op->sent_at = spi_time(row, 17);
	op->answered_at = spi_time(row, 18);
	op->absent_looks = spi_int4(row, 19);
	op->absent_since = spi_time(row, 20);
	op->http_status = spi_int4(row, 21);
	op->verified = spi_bool(row, 22);
	op->price_assumed = spi_bool(row, 23);
	op->gpu_count = spi_int4(row, 24);
	op->cloud_type = spi_text(row, 25);
	op->denied_at = spi_time(row, 26);
}

/* Run a query for one op; false if there is none. */
static bool
read_one(SpiQuery *query, SpiArgs *args, CloudOpRow *op)
{
	bool found;

	spi_begin();
	found = spi_run(query, args) == 1;
	if (found)
		read_op(op, 0);
	spi_end();
	return found;
}

static int
read_ops(CloudOpRow **ops)
{
	int n = (int) SPI_processed;

	*ops = SPI_palloc((n + 1) * sizeof(CloudOpRow));
	for (int i = 0; i < n; i++)
		read_op(&(*ops)[i], i);
	return n;
}

/*
 * Announce a create for a worker that was just added: by a decision, or, without
 * one, by the role that called in. The price is what the pod counts for: the
 * offer's, or an assumed one where that has none. Returns the op's id.
 */
int64
store_op_plan_create(int64 worker, const OfferRow *offer, const Installation *installation,
					 int64 price_micros, int64 decision, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pool, offer, pod_name, gpu_type,"
		" data_center, gpu_count, cloud_type, price_micros, price_assumed, decision, planned_at,"
		" requested_by) VALUES ('create', 'planned', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
		" $12, $13, $14) RETURNING id"
	};
	SpiArgs args = SPI_ARGS_INIT;
	char nonce[POD_NONCE_LENGTH + 1];
	int64 id;

	make_nonce(nonce);
	spi_begin();
	spi_arg_text(&args, nonce);
	spi_arg_int8(&args, worker);
	spi_arg_int4(&args, offer->pool);
	spi_arg_int8(&args, offer->id);
	spi_arg_text(&args, store_op_pod_name(installation, nonce));
	spi_arg_text(&args, offer->gpu_type);
	spi_arg_text(&args, offer->data_center);
	spi_arg_int4(&args, offer->gpu_count);
	spi_arg_text(&args, offer->cloud_type);
	spi_arg_int8(&args, price_micros);
	spi_arg_bool(&args, offer->price_micros <= 0);
	spi_arg(&args, INT8OID, Int64GetDatum(decision), decision == 0);
	spi_arg_time(&args, now);
	spi_arg_text(&args, decision == 0 ? caller_name() : NULL);
	spi_run_one(&query, &args, "planning a create");
	id = spi_int8(0, 1);
	spi_end();
	return id;
}

/*
 * Write the settled create of a pod whose rows are lost, which was sent at that
 * time, as far as is known.
 */
void
store_op_restore(int64 worker, int32 pool, const char *nonce, const char *pod_name,
				 const char *pod_id, int64 price_micros, TimestampTz sent_at, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pool, pod_name, pod_id,"
		" price_micros, planned_at, sent_at, answered_at, settled_at, reason, cause) "
		"VALUES ('create', 'done', $1, $2, $3, $4, $5, $6, $7, $7, $8, $8, 'restored', 'restored_pod')"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, nonce);
	spi_arg_int8(&args, worker);
	spi_arg_int4(&args, pool);
	spi_arg_text(&args, pod_name);
	spi_arg_text(&args, pod_id);
	spi_arg_int8(&args, price_micros);
	spi_arg_time(&args, sent_at);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "restoring a create");
	spi_end();
}

/*
 * Announce the delete of a pod, unless one is open already; worker 0 for a pod
 * that no row knows, but that the provider showed under our name. The cause is that of
 * the move that ended the worker, or the kind of the event that tells of the pod;
 * requested_by the operator that ended it, NULL if none did.
 */
void
store_op_plan_delete(int64 worker, int32 pool, const char *pod_name, const char *pod_id,
					 const char *cause, const char *requested_by, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.cloud_op (kind, state, nonce, worker, pool, pod_name, pod_id, due_at,"
		" planned_at, requested_by, cause, verified) "
		"SELECT 'delete', 'planned', $1, $2, $3, $4, $5, $6, $6, $7, $8, $2 IS NULL OR EXISTS"
		" (SELECT 1 FROM gpu_orch.cloud_op WHERE kind = 'create' AND worker = $2 AND pod_id = $5"
		"  AND verified) WHERE NOT EXISTS"
		" (SELECT 1 FROM gpu_orch.cloud_op WHERE kind = 'delete' AND pod_id = $5"
		"  AND state IN ('planned', 'sent', 'unknown'))"
	};
	SpiArgs args = SPI_ARGS_INIT;
	char nonce[POD_NONCE_LENGTH + 1];

	make_nonce(nonce);
	spi_begin();
	spi_arg_text(&args, nonce);
	spi_arg(&args, INT8OID, Int64GetDatum(worker), worker == 0);
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_text(&args, pod_name);
	spi_arg_text(&args, pod_id);
	spi_arg_time(&args, now);
	spi_arg_text(&args, requested_by);
	spi_arg_text(&args, cause);
	INJECT("delete.planned");
	spi_run(&query, &args);
	spi_end();
}

/*
 * Announce a delete for each terminating worker whose pod is known and that has
 * none open, for the cause of its move there. Returns how many.
 */
int
store_op_plan_owed_deletes(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT w.no, w.pool, p.pod_id,"
		" coalesce((SELECT o.pod_name FROM gpu_orch.cloud_op o WHERE o.worker = w.no"
		"           AND o.kind = 'create' ORDER BY o.id DESC LIMIT 1), w.id), e.kind,"
		" CASE WHEN e.kind IN ('terminate', 'kill') THEN e.actor END "
		"FROM gpu_orch.worker w JOIN gpu_orch.worker_profile p ON p.worker = w.no "
		"LEFT JOIN LATERAL (SELECT e.kind, e.actor FROM gpu_orch.event e WHERE e.worker = w.no"
		"  AND e.to_state = 'terminating' AND e.from_state <> 'terminating'"
		"  ORDER BY e.id DESC LIMIT 1) e ON true "
		"WHERE w.state <> 'terminated' AND w.state = 'terminating' AND p.pod_id IS NOT NULL"
		" AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no"
		"                 AND o.kind = 'delete' AND o.state IN ('planned', 'sent', 'unknown'))"
	};
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	{
		struct
		{
			int64 worker;
			int32 pool;
			char *pod_id;
			char *name;
			char *cause;
			char *requested_by;
		} *owed = palloc((n + 1) * sizeof(*owed));

		for (int i = 0; i < n; i++)
		{
			owed[i].worker = spi_int8(i, 1);
			owed[i].pool = spi_int4(i, 2);
			owed[i].pod_id = spi_text(i, 3);
			owed[i].name = spi_text(i, 4);
			owed[i].cause = spi_text(i, 5);
			owed[i].requested_by = spi_text(i, 6);
		}
		for (int i = 0; i < n; i++)
			store_op_plan_delete(owed[i].worker, owed[i].pool, owed[i].name, owed[i].pod_id,
								 owed[i].cause, owed[i].requested_by, now);
	}
	spi_end();
	return n;
}

/* Raise or clear the alert for deletes that have been owed for longer than age, in microseconds. */
static void
watch_owed(const char *alert, int64 age, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT count(*), min(o.pod_id), to_char(min(o.planned_at) AT TIME ZONE 'UTC',"
		" 'YYYY-MM-DD HH24:MI:SS') "
		"FROM gpu_orch.cloud_op o WHERE o.kind = 'delete' AND o.state IN ('planned', 'sent', 'unknown')"
		" AND o.planned_at < $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	char *detail = NULL;

	spi_begin();
	spi_arg_time(&args, now - age);
	if (spi_read(&query, &args, 1) == 1 && spi_int8(0, 1) > 0)
		detail = psprintf(INT64_FORMAT " pods, among them %s; the first delete since %s UTC",
						  spi_int8(0, 1), spi_text(0, 2), spi_text(0, 3));
	store_alert(alert, "fleet", detail, now);
	spi_end();
}

/* Raise or clear the alerts for deletes that are not proved for long. */
void
store_op_watch_deletes(TimestampTz now)
{
	watch_owed(ALERT_DELETE_OWED, 10 * USECS_PER_MINUTE, now);
	watch_owed(ALERT_DELETE_OWED_LONG, USECS_PER_HOUR, now);
}

/* The ops of a kind that are planned and due, oldest first; deletes of pods not known as ours last. */
int
store_op_due(CloudOpRow **ops, OpKind kind, int limit, TimestampTz now)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS " FROM gpu_orch.cloud_op "
							  "WHERE state = 'planned' AND kind = $1"
							  " AND coalesce(due_at, '-infinity') <= $3"
							  " ORDER BY NOT verified, id LIMIT $2" };
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_begin();
	spi_arg_text(&args, kind == OP_CREATE ? "create" : "delete");
	spi_arg_int8(&args, limit);
	spi_arg_time(&args, now);
	spi_read(&query, &args, 0);
	n = read_ops(ops);
	spi_end();
	return n;
}

/* Planned creates of workers that are not spawning any more, as far as their rows can be read. */
int
store_op_abandoned(CloudOpRow **ops)
{
	static SpiQuery query = {
		"SELECT " OP_COLUMNS " FROM gpu_orch.cloud_op o "
		"WHERE state = 'planned' AND kind = 'create'"
		" AND EXISTS (SELECT 1 FROM gpu_orch.worker w WHERE w.no = o.worker"
		"             AND w.state <> 'spawning' AND w.state::text IN"
		"             (SELECT t.to_state::text FROM gpu_orch.worker_transition t)) ORDER BY id"
	};
	int n;

	spi_begin();
	spi_read(&query, NULL, 0);
	n = read_ops(ops);
	spi_end();
	return n;
}

/* Read an op without locking it; false if there is none. */
bool
store_op_read(int64 id, CloudOpRow *op)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS " FROM gpu_orch.cloud_op WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, id);
	return read_one(&query, &args, op);
}

/* Lock an op, then read it; false if there is none. */
bool
store_op_lock(int64 id, CloudOpRow *op)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS
							  " FROM gpu_orch.cloud_op WHERE id = $1 FOR NO KEY UPDATE" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, id);
	return read_one(&query, &args, op);
}

/* All ops that are planned, sent or unknown. */
int
store_op_open(CloudOpRow **ops)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS " FROM gpu_orch.cloud_op "
							  "WHERE state IN ('planned', 'sent', 'unknown') ORDER BY id" };
	int n;

	spi_begin();
	spi_read(&query, NULL, 0);
	n = read_ops(ops);
	spi_end();
	return n;
}

/* The create that gave a pod its name, settled or not; false if it is not ours. */
bool
store_op_find_by_name(const char *pod_name, CloudOpRow *op)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS
							  " FROM gpu_orch.cloud_op WHERE pod_name = $1 AND kind = 'create'" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_text(&args, pod_name);
	return read_one(&query, &args, op);
}

/* Whether a pod was deleted, and that was proved. */
bool
store_op_was_deleted(const char *pod_id)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.cloud_op WHERE pod_id = $1 AND kind = 'delete' AND state = 'done'"
		" LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_text(&args, pod_id);
	found = spi_read(&query, &args, 1) == 1;
	spi_end();
	return found;
}

/* The newest op of a kind for a worker; false if there is none. */
bool
store_op_latest(int64 worker, OpKind kind, CloudOpRow *op)
{
	static SpiQuery query = { "SELECT " OP_COLUMNS
							  " FROM gpu_orch.cloud_op WHERE worker = $1 AND kind = $2 "
							  "ORDER BY id DESC LIMIT 1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, worker);
	spi_arg_text(&args, kind == OP_CREATE ? "create" : "delete");
	return read_one(&query, &args, op);
}

/* Let a planned op wait until then. */
void
store_op_postpone(int64 id, TimestampTz due_at)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET due_at = $2 WHERE id = $1 AND state = 'planned'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, id);
	spi_arg_time(&args, due_at);
	spi_run(&query, &args);
	spi_end();
}

/* Mark an op as sent by the leader of this epoch; the commit comes before the call. */
void
store_op_sent(int64 id, int64 epoch, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET state = 'sent', epoch = $2, sent_at = $3, tries = tries + 1,"
		" http_status = NULL, answered_at = NULL, absent_looks = 0, absent_since = NULL,"
		" denied_at = NULL WHERE id = $1 AND state = 'planned'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, id);
	spi_arg_int8(&args, epoch);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "marking an op as sent");
	spi_end();
}

/*
 * Record what became of an op. OP_PLANNED with a due time plans it again: a
 * delete at any time, a create only if nothing of it left this machine. A delete
 * that was answered stays OP_SENT until its pod is proved gone.
 */
void
store_op_answer(int64 id, OpState state, int http_status, const char *reason, const char *message,
				const char *pod_id, TimestampTz due_at, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET state = $2, http_status = coalesce($3, http_status),"
		" reason = $4, message = $5, pod_id = coalesce($6, pod_id), due_at = $7, answered_at = $8,"
		" settled_at = CASE WHEN $2 IN ('done', 'refused', 'absent') THEN $8 END WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, id);
	spi_arg_text(&args, state_names[state]);
	spi_arg(&args, INT4OID, Int32GetDatum(http_status), http_status == 0);
	spi_arg_text(&args, reason);
	spi_arg_text(&args, message);
	spi_arg_text(&args, pod_id);
	spi_arg_time(&args, due_at);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "recording an answer");
	spi_end();
}

/* Plan a delete again whose pod the provider still shows. */
void
store_op_send_again(int64 id, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET state = 'planned', due_at = $2, http_status = NULL,"
		" absent_looks = 0, absent_since = NULL WHERE id = $1 AND kind = 'delete'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, id);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "planning a delete again");
	spi_end();
}

/*
 * Give up answers that nobody will hear, to calls that an older leader sent or that were sent
 * before `before`: creates become unknown, deletes are planned again.
 */
void
store_op_unanswered(int64 epoch, TimestampTz before, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET state = CASE kind WHEN 'create' THEN 'unknown'"
		" ELSE 'planned' END, reason = 'unanswered', due_at = $3"
		" WHERE id IN (SELECT id FROM gpu_orch.cloud_op WHERE state = 'sent'"
		" AND (epoch < $1 OR sent_at < $2) AND (kind = 'create' OR http_status IS NULL)"
		" FOR NO KEY UPDATE SKIP LOCKED)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, epoch);
	spi_arg_time(&args, before);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* Return the time at which the next planned op that waits becomes due; 0: none waits. */
TimestampTz
store_op_next_due(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT min(due_at) FROM gpu_orch.cloud_op WHERE state IN ('planned', 'sent', 'unknown')"
		" AND state = 'planned' AND due_at > $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	TimestampTz due;

	spi_begin();
	spi_arg_time(&args, now);
	spi_read(&query, &args, 1);
	due = spi_time(0, 1);
	spi_end();
	return due;
}

/* How many creates were planned or sent since a time, for the rate limit. */
int64
store_op_creates_since(TimestampTz since)
{
	static SpiQuery query = {
		"SELECT (SELECT count(*) FROM gpu_orch.cloud_op WHERE kind = 'create' AND sent_at > $1)"
		" + (SELECT count(*) FROM gpu_orch.cloud_op WHERE kind = 'create' AND state = 'planned'"
		"    AND state IN ('planned', 'sent', 'unknown'))"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int64 n;

	spi_begin();
	spi_arg_time(&args, since);
	spi_read(&query, &args, 1);
	n = spi_int8(0, 1);
	spi_end();
	return n;
}

/* Note that the provider itself showed an op's pod id under the op's name. */
void
store_op_verify(int64 id)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op SET verified = true WHERE id = $1 AND NOT verified"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, id);
	spi_run(&query, &args);
	spi_end();
}

/* Note of all ops whose pod is among n listed ones, by name and id, that they are verified. */
void
store_op_verify_listed(char *const *names, char *const *ids, int n)
{
	static SpiQuery any = {
		"SELECT 1 FROM gpu_orch.cloud_op WHERE NOT verified AND pod_id IS NOT NULL LIMIT 1"
	};
	static SpiQuery query = {
		"UPDATE gpu_orch.cloud_op o SET verified = true"
		" FROM unnest($1, $2) AS listed(name, id)"
		" WHERE NOT o.verified AND o.pod_id IS NOT NULL AND o.pod_id = listed.id"
		" AND o.pod_name = listed.name"
	};
	SpiArgs args = SPI_ARGS_INIT;

	if (n == 0)
		return;
	spi_begin();
	if (spi_read(&any, NULL, 1) == 1)
	{
		spi_arg_text_array(&args, names, n);
		spi_arg_text_array(&args, ids, n);
		spi_run(&query, &args);
	}
	spi_end();
}

/*
 * Give a worker's create the pod that the provider shows under its name. A delete that is owed under
 * the id that a registration had named is owed of this pod; it was never sent.
 */
void
store_op_rebind(const CloudOpRow *op, const char *pod_id, TimestampTz now)
{
	static SpiQuery create = {
		"UPDATE gpu_orch.cloud_op SET pod_id = $2, verified = true WHERE id = $1"
	};
	static SpiQuery owed = {
		"UPDATE gpu_orch.cloud_op SET pod_id = $2, verified = true, state = 'planned', due_at = $3,"
		" http_status = NULL, absent_looks = 0, absent_since = NULL"
		" WHERE worker = $1 AND kind = 'delete' AND NOT verified"
		" AND state IN ('planned', 'sent', 'unknown')"
	};
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs owed_args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, op->id);
	spi_arg_text(&args, pod_id);
	spi_run_one(&create, &args, "noting another pod");
	spi_arg_int8(&owed_args, op->worker);
	spi_arg_text(&owed_args, pod_id);
	spi_arg_time(&owed_args, now);
	spi_run(&owed, &owed_args);
	spi_end();
}
