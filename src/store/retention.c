/*
 * store/retention.c
 *	  What is removed when its time is over, and what of it is still needed.
 *
 * One table of rules, for the leader and for prune(). A rule walks over what is old enough, in
 * order, in windows: the window says where to go on and which of its rows may go. Those are
 * locked, skipping what somebody has locked, and looked at again in a later statement, which
 * sees all that was committed before the lock; then they are removed. So nothing here waits
 * for anybody, and who locks a row of `task` first has it: cancel_task() and retry_task() do, a
 * submission that names an old parent, and a retry the parents of its task.
 *
 * What belongs together goes in one transaction: a task with its attempts and dependencies; a
 * worker with its calls, spend and events. So whatever is left holds the invariants. Must not
 * lock what a claim or the end of an attempt waits for.
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/inject.h"
#include "miscadmin.h"
#include "store/event.h"
#include "store/retention.h"
#include "store/task.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/* What a rule's time is cut back to, so that nothing goes that is not summed up yet. */
typedef enum Summed
{
	SUMMED_NOT, /* it enters no sum */
	SUMMED_ATTEMPTS,
	SUMMED_SPEND
} Summed;

/*
 * One rule. In its statements $2 is the time before which something must have ended, and $3 the
 * time before which a task must have been submitted that has an idempotency key.
 */
typedef struct RetentionRule
{
	const char *relation;	  /* what the checkpoints are of */
	const char *setting_name; /* without the prefix */
	const int *setting;		  /* in minutes; -1: for ever */
	Summed summed;
	int batch;			   /* the rows of a window */
	const char *writes[5]; /* the tables of which rows go; NULL ends them */
	SpiQuery window; /* after id $1 and time $5, $4 rows: (id, time, whether it may go) in order */
	SpiQuery lock;	 /* of the ids $1 those that nobody has locked */
	SpiQuery remove; /* of the ids $1: (relation, rows) */
	SpiQuery count;	 /* (relation, rows) that would go */
} RetentionRule;

/* A task with more children than this stays until some of them went, which bounds what is read for it. */
#define MOST_CHILDREN "1000"

/*
 * Whether task t is needed by nobody. A child that has ended in time does not need its parent any
 * more. OFFSET keeps each question one of its own, which an index answers for one task.
 */
#define TASK_MAY_GO \
	"NOT EXISTS (SELECT 1 FROM gpu_orch.waiting x WHERE x.task_id = t.id OFFSET 0)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.ready_queue x WHERE x.task_id = t.id OFFSET 0)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease x WHERE x.task_id = t.id OFFSET 0)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.cancel_request x WHERE x.task_id = t.id OFFSET 0)" \
	" AND t.id NOT IN (SELECT x.task_id FROM gpu_orch.dependency_check x)" \
	" AND (t.idempotency_key IS NULL OR t.submitted_at < $3)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d WHERE d.parent = t.id" \
	"  OFFSET " MOST_CHILDREN ")" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.task_dependency d WHERE d.parent = t.id" \
	"  AND NOT EXISTS (SELECT 1 FROM gpu_orch.attempt c WHERE c.task_id = d.task_id" \
	"   AND c.final_state IS NOT NULL AND c.ended_at < $2 OFFSET 0) OFFSET 0)"

/* Whether something of task t is there to be erased. */
#define HAS_PAYLOAD "t.payload <> " ERASED_PAYLOAD
#define HAS_RESULT "(r.result IS NOT NULL OR r.error <> " ERASED_ERROR ")"
#define TASK_HAS_RESULT \
	"EXISTS (SELECT 1 FROM gpu_orch.attempt r WHERE r.task_id = t.id AND " HAS_RESULT " OFFSET 0)"

/* The tasks that ended in time, in order of their ends, and whether each may go. */
#define TASK_WINDOW(may_go) \
	"SELECT e.task_id, e.ended_at, coalesce((" may_go "), false) FROM" \
	" (SELECT a.task_id, a.ended_at FROM gpu_orch.attempt a WHERE a.final_state IS NOT NULL" \
	"  AND a.ended_at >= $5 AND (a.ended_at, a.task_id) > ($5, $1) AND a.ended_at < $2" \
	"  ORDER BY a.ended_at, a.task_id LIMIT $4) e" \
	" LEFT JOIN gpu_orch.task t ON t.id = e.task_id ORDER BY e.ended_at, e.task_id"

#define TASK_LOCK \
	"SELECT id FROM gpu_orch.task WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED"

/* Whether task t has ended in time, read anew. */
#define TASK_ENDED \
	"EXISTS (SELECT 1 FROM gpu_orch.attempt e WHERE e.task_id = t.id" \
	" AND e.final_state IS NOT NULL AND e.ended_at < $2 OFFSET 0)"

/* Erasing results, of the tasks that a condition on a names. */
#define ERASE_RESULTS(tasks) \
	"UPDATE gpu_orch.attempt r SET result = NULL," \
	" error = CASE WHEN r.error IS NOT NULL THEN " ERASED_ERROR " END" \
	" WHERE r.task_id " tasks " AND " HAS_RESULT

/*
 * Whether worker w is history: ended, each of its calls settled and its pod proved gone, and not paid
 * for since. A settled create is the tombstone by which a pod that shows up late is known, so calls
 * are as old as that before they go.
 */
#define WORKER_MAY_GO \
	"w.state = 'terminated' AND w.state_since < $2" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease x WHERE x.worker = w.no)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.image_breaker x WHERE x.canary = w.no)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no AND NOT" \
	"  (o.state IN ('done', 'refused', 'absent') AND coalesce(o.settled_at < $2, false)))" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.worker = w.no" \
	"  AND coalesce(s.ended_at >= $2, true))" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.event e WHERE e.worker = w.no AND e.at >= $2)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.worker_profile f WHERE f.worker = w.no" \
	"  AND f.pod_id IS NOT NULL AND f.ended_because IS DISTINCT FROM 'pod_gone'" \
	"  AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.worker = w.no" \
	"   AND o.kind = 'delete' AND o.state = 'done'))"

/* The same of a call about a pod that no worker has: o, with its spend. */
#define POD_MAY_GO \
	"o.worker IS NULL AND o.state IN ('done', 'refused', 'absent') AND coalesce(o.settled_at < $2, false)" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.spend s WHERE s.pod_id = o.pod_id AND s.worker IS NULL" \
	"  AND coalesce(s.ended_at >= $2, true))"
#define PAID_MAY_GO \
	"s.worker IS NULL AND coalesce(s.ended_at < $2, false) AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o" \
	" WHERE o.pod_id = s.pod_id AND o.state IN ('planned', 'sent', 'unknown'))"

/* Events about a worker go with it, those about a pod when no call about it is left. */
#define EVENT_MAY_GO \
	"e.worker IS NULL AND e.at < $2" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.pod_name = e.subject AND o.kind = 'create')" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.cloud_op o WHERE o.pod_id = e.detail ->> 'pod_id' AND o.kind = 'delete')"
#define ALERT_MAY_GO "coalesce(l.cleared_at < $2, false)"

/*
 * A shape of which no task is ready. It is stored anew with the next task that is submitted, and
 * others bring what it demands along, so nobody has to wait for its removal.
 */
#define SHAPE_MAY_GO \
	"s.created_at < $2" \
	" AND NOT EXISTS (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.shape = s.id OFFSET 0)"

/* A table whose rows have a number, and whether each may go. Those that are too young come too. */
#define NUMBERED_WINDOW(table, t, id, made, may_go) \
	"SELECT " t "." id ", " t "." made ", coalesce(" t "." made " < $2 AND (" may_go "), false)" \
	" FROM (SELECT * FROM gpu_orch." table " x WHERE x." id " > $1 ORDER BY x." id " LIMIT $4) " t \
	" ORDER BY " t "." id
#define NUMBERED_LOCK(table, id) \
	"SELECT " id " FROM gpu_orch." table " WHERE " id " = ANY ($1) ORDER BY " id \
	" FOR UPDATE SKIP LOCKED"
#define NUMBERED_REMOVE(table, t, may_go) \
	"WITH gone AS (DELETE FROM gpu_orch." table " " t " WHERE " t ".id = ANY ($1) AND " may_go \
	" RETURNING 1)" \
	" SELECT '" table "', count(*) FROM gone"
#define NUMBERED_COUNT(table, t, may_go) \
	"SELECT '" table "', count(*) FROM gpu_orch." table " " t " WHERE " may_go

#define NUMBERED_RULE(table, t, made, setting, summed, may_go) \
	{ \
		table, #setting, &guc_##setting, summed, 1000, { table }, \
			{ NUMBERED_WINDOW(table, t, "id", made, may_go) }, { NUMBERED_LOCK(table, "id") }, \
			{ NUMBERED_REMOVE(table, t, may_go) }, \
		{ \
			NUMBERED_COUNT(table, t, may_go) \
		} \
	}

/* A table by days, of which one goes at a time. */
#define DAY_WINDOW(table) \
	"SELECT (min(x.day) - DATE '2000-01-01')::bigint, '-infinity'::timestamptz, true" \
	" FROM gpu_orch." table \
	" x WHERE x.day < ($2 AT TIME ZONE 'UTC')::date HAVING min(x.day) IS NOT NULL"
#define DAY_LOCK "SELECT unnest($1)"
#define DAY_REMOVE(table) \
	"WITH gone AS (DELETE FROM gpu_orch." table \
	" x WHERE x.day = DATE '2000-01-01' + ($1)[1]::int RETURNING 1)" \
	" SELECT '" table "', count(*) FROM gone"
#define DAY_COUNT(table) \
	"SELECT '" table "', count(*) FROM gpu_orch." table \
	" x WHERE x.day < ($2 AT TIME ZONE 'UTC')::date"
#define DAY_RULE(table) \
	{ \
		table, "retention_ledger", &guc_retention_ledger, SUMMED_NOT, 1, { table }, \
			{ DAY_WINDOW(table) }, { DAY_LOCK }, { DAY_REMOVE(table) }, \
		{ \
			DAY_COUNT(table) \
		} \
	}

/* In order: what others refer to goes after them. */
static RetentionRule rules[RETENTION_RULES] = {
	{ "task",
	  "retention_tasks",
	  &guc_retention_tasks,
	  SUMMED_ATTEMPTS,
	  1000,
	  { "task", "attempt", "task_dependency" },
	  { TASK_WINDOW(TASK_MAY_GO) },
	  { TASK_LOCK },
	  { "WITH gone AS MATERIALIZED (SELECT t.id, t.place FROM unnest($1) i(id) CROSS JOIN LATERAL"
		"  (SELECT t.id, t.ctid AS place, t.idempotency_key, t.submitted_at FROM gpu_orch.task t"
		"   WHERE t.id = i.id OFFSET 0) t WHERE " TASK_ENDED " AND " TASK_MAY_GO "),"
		" tried AS (DELETE FROM gpu_orch.attempt a WHERE a.ctid = ANY (ARRAY(SELECT x.ctid FROM gone g"
		"  CROSS JOIN LATERAL (SELECT x.ctid FROM gpu_orch.attempt x WHERE x.task_id = g.id OFFSET 0) x))"
		"  RETURNING 1),"
		" needed AS (DELETE FROM gpu_orch.task_dependency d WHERE d.ctid = ANY (ARRAY(SELECT x.ctid FROM gone g"
		"  CROSS JOIN LATERAL (SELECT x.ctid FROM gpu_orch.task_dependency x WHERE x.task_id = g.id OFFSET 0) x))"
		"  RETURNING 1),"
		" submitted AS (DELETE FROM gpu_orch.task t WHERE t.ctid = ANY (ARRAY(SELECT g.place FROM gone g))"
		"  RETURNING 1) "
		"SELECT 'task', count(*) FROM submitted"
		" UNION ALL SELECT 'attempt', count(*) FROM tried"
		" UNION ALL SELECT 'task_dependency', count(*) FROM needed" },
	  { "WITH gone AS MATERIALIZED (SELECT t.id FROM gpu_orch.attempt e"
		"  JOIN gpu_orch.task t ON t.id = e.task_id"
		"  WHERE e.final_state IS NOT NULL AND e.ended_at < $2 AND " TASK_MAY_GO ") "
		"SELECT 'task', count(*) FROM gone"
		" UNION ALL SELECT 'attempt', count(*) FROM gone g JOIN gpu_orch.attempt a ON a.task_id = g.id"
		" UNION ALL SELECT 'task_dependency', count(*) FROM gone g"
		"  JOIN gpu_orch.task_dependency d ON d.task_id = g.id" } },
	{ "task.payload",
	  "retention_payloads",
	  &guc_retention_payloads,
	  SUMMED_NOT,
	  1000,
	  { "task" },
	  { TASK_WINDOW(HAS_PAYLOAD) },
	  { TASK_LOCK },
	  { "WITH gone AS (UPDATE gpu_orch.task t SET payload = " ERASED_PAYLOAD
		" WHERE t.id = ANY ($1)"
		"  AND " TASK_ENDED " AND " HAS_PAYLOAD " RETURNING 1)"
		" SELECT 'task.payload', count(*) FROM gone" },
	  { "SELECT 'task.payload', count(*) FROM gpu_orch.task t WHERE " TASK_ENDED
		" AND " HAS_PAYLOAD } },
	{ "attempt.result",
	  "retention_results",
	  &guc_retention_results,
	  SUMMED_NOT,
	  1000,
	  { "task", "attempt" },
	  { TASK_WINDOW(TASK_HAS_RESULT) },
	  { TASK_LOCK },
	  { "WITH gone AS (" ERASE_RESULTS("IN (SELECT t.id FROM gpu_orch.task t WHERE t.id = ANY ($1)"
									   " AND " TASK_ENDED
									   ")") " RETURNING 1)"
											" SELECT 'attempt.result', count(*) FROM gone" },
	  { "SELECT 'attempt.result', count(*) FROM gpu_orch.attempt r"
		" JOIN gpu_orch.task t ON t.id = r.task_id WHERE " HAS_RESULT " AND " TASK_ENDED } },
	NUMBERED_RULE("shape", "s", "created_at", retention_tasks, SUMMED_NOT, SHAPE_MAY_GO),
	{ "worker",
	  "retention_ledger",
	  &guc_retention_ledger,
	  SUMMED_SPEND,
	  200,
	  { "worker", "worker_profile", "cloud_op", "spend", "event" },
	  { NUMBERED_WINDOW("worker", "w", "no", "created_at", WORKER_MAY_GO) },
	  { NUMBERED_LOCK("worker", "no") },
	  { "WITH gone AS MATERIALIZED (SELECT w.no FROM gpu_orch.worker w WHERE w.no = ANY ($1)"
		"  AND " WORKER_MAY_GO "),"
		" called AS (DELETE FROM gpu_orch.cloud_op o USING gone g WHERE o.worker = g.no RETURNING 1),"
		" paid AS (DELETE FROM gpu_orch.spend s USING gone g WHERE s.worker = g.no RETURNING 1),"
		" told AS (DELETE FROM gpu_orch.event e USING gone g WHERE e.worker = g.no RETURNING 1),"
		" worked AS (DELETE FROM gpu_orch.worker w USING gone g WHERE w.no = g.no RETURNING 1) "
		"SELECT 'worker', count(*) FROM worked"
		" UNION ALL SELECT 'cloud_op', count(*) FROM called"
		" UNION ALL SELECT 'spend', count(*) FROM paid"
		" UNION ALL SELECT 'event', count(*) FROM told" },
	  { "WITH gone AS MATERIALIZED (SELECT w.no FROM gpu_orch.worker w WHERE " WORKER_MAY_GO ") "
		"SELECT 'worker', count(*) FROM gone"
		" UNION ALL SELECT 'cloud_op', count(*) FROM gone g JOIN gpu_orch.cloud_op o ON o.worker = g.no"
		" UNION ALL SELECT 'spend', count(*) FROM gone g JOIN gpu_orch.spend s ON s.worker = g.no"
		" UNION ALL SELECT 'event', count(*) FROM gone g JOIN gpu_orch.event e ON e.worker = g.no" } },
	NUMBERED_RULE("cloud_op", "o", "planned_at", retention_ledger, SUMMED_SPEND, POD_MAY_GO),
	NUMBERED_RULE("spend", "s", "started_at", retention_ledger, SUMMED_SPEND, PAID_MAY_GO),
	NUMBERED_RULE("event", "e", "at", retention_ledger, SUMMED_NOT, EVENT_MAY_GO),
	NUMBERED_RULE("decision", "d", "at", retention_decisions, SUMMED_NOT, "d.at < $2"),
	NUMBERED_RULE("alert", "l", "raised_at", retention_ledger, SUMMED_NOT, ALERT_MAY_GO),
	DAY_RULE("usage_day"),
	DAY_RULE("share_day"),
	DAY_RULE("spend_day"),
};

/* The time that was so many minutes ago; the beginning of time for a setting that means for ever. */
static TimestampTz
minutes_ago(int minutes, TimestampTz now)
{
	return minutes < 0 ? DT_NOBEGIN : now - minutes * USECS_PER_MINUTE;
}

/* The time before which what a rule is about must have ended; DT_NOBEGIN: nothing goes. */
static TimestampTz
rule_cut(const RetentionRule *rule, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT least($1, CASE WHEN $2 THEN coalesce("
		"  (SELECT c.at FROM gpu_orch.counted c WHERE c.what = 'usage'), '-infinity') END,"
		" (SELECT c.at FROM gpu_orch.counted c WHERE c.what = 'spend'),"
		" CASE WHEN NOT EXISTS (SELECT 1 FROM gpu_orch.counted c WHERE c.what = 'spend') THEN"
		"  (SELECT date_trunc('day', min(s.started_at), 'UTC') FROM gpu_orch.spend s) END)"
	};
	TimestampTz cut = minutes_ago(*rule->setting, now);
	SpiArgs args = SPI_ARGS_INIT;

	if (cut == DT_NOBEGIN || rule->summed == SUMMED_NOT)
		return cut;
	spi_begin();
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(cut), false);
	spi_arg_bool(&args, rule->summed == SUMMED_ATTEMPTS);
	spi_read(&query, &args, 1);
	cut = spi_time(0, 1);
	spi_end();
	return cut;
}

/* Add rows of a relation. */
void
store_retention_add(RetentionSum *sum, const char *relation, int64 rows)
{
	int i = 0;

	while (i < sum->n && strcmp(sum->relation[i], relation) != 0)
		i++;
	if (i == sum->n)
	{
		Assert(i < RETENTION_RELATIONS);
		strlcpy(sum->relation[i], relation, NAMEDATALEN);
		sum->rows[i] = 0;
		sum->n++;
	}
	sum->rows[i] += rows;
}

/* Add what a statement returned, (relation, rows). */
static void
add_up(RetentionSum *sum, int n)
{
	for (int row = 0; row < n; row++)
		store_retention_add(sum, spi_text(row, 1), spi_int8(row, 2));
}

/* The arguments that all but the lock have: the first one is there already. */
static void
add_cuts(SpiArgs *args, TimestampTz cut, TimestampTz now)
{
	spi_arg(args, TIMESTAMPTZOID, TimestampTzGetDatum(cut), false);
	spi_arg(args, TIMESTAMPTZOID, TimestampTzGetDatum(minutes_ago(guc_key_retention, now)), false);
}

/*
 * Remove those of n rows that nobody has locked and that may still go. Inside spi_begin().
 */
static void
remove_rows(RetentionRule *rule, int64 *ids, int n, TimestampTz cut, RetentionSum *sum,
			TimestampTz now)
{
	SpiArgs lock_args = SPI_ARGS_INIT;
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8_array(&lock_args, ids, n, INT8OID);
	n = (int) spi_run(&rule->lock, &lock_args);
	for (int i = 0; i < n; i++)
		ids[i] = spi_int8(i, 1);
	if (n == 0)
		return;
	spi_arg_int8_array(&args, ids, n, INT8OID);
	add_cuts(&args, cut, now);
	add_up(sum, (int) spi_run(&rule->remove, &args));
	INJECT("retention.removed");
}

/*
 * Have statements planned until the returned level ends so that they go from each row of a window to
 * those of its own by an index, and not compiled. What the planner takes for better when a table was small, or for want of
 * statistics, reads whole tables. Nor are plans kept: once a minute is too seldom for that.
 */
static int
plan_by_index(void)
{
	static const char *const others[] = { "enable_seqscan",
										  "enable_bitmapscan",
										  "enable_hashjoin",
										  "enable_mergejoin",
										  "enable_sort",
										  "enable_material",
										  "jit" };
	int level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(others); i++)
		(void) set_config_option(others[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	(void) set_config_option("plan_cache_mode", "force_custom_plan", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Take the locks of the tables that a rule writes to, before any of them is read. */
void
store_retention_lock(int number)
{
	const RetentionRule *rule = &rules[number];

	for (int i = 0; i < lengthof(rule->writes) && rule->writes[i] != NULL; i++)
		spi_lock_for_write(rule->writes[i]);
}

/*
 * Look at the next rows by a rule and remove those that are old enough and that nobody needs.
 * Moves the place on and adds to the sum. Returns false when there is nothing more to look at.
 *
 * Rows are numbered as they are made, so a young one is followed by young ones, unless a clock
 * was ahead. A place stays before them, unless young is given: then it goes on behind them, and
 * *young becomes the place before the first of them, if it is RETENTION_NOWHERE yet.
 */
bool
store_retention_step(int number, RetentionPlace *place, RetentionPlace *young, RetentionSum *sum,
					 TimestampTz now)
{
	RetentionRule *rule = &rules[number];
	TimestampTz cut;
	SpiArgs args = SPI_ARGS_INIT;
	int64 *ids;
	int n;
	int n_seen = 0;
	int n_ids = 0;
	int level;

	if (*rule->setting < 0)
		return false;
	store_retention_lock(number);
	spi_begin();
	level = plan_by_index();
	cut = rule_cut(rule, now);
	spi_arg_int8(&args, place->id);
	add_cuts(&args, cut, now);
	spi_arg_int8(&args, rule->batch);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(place->at), false);
	n = (int) spi_read(&rule->window, &args, 0);
	ids = palloc((n + 1) * sizeof(int64));
	for (; n_seen < n; n_seen++)
	{
		TimestampTz at = spi_time(n_seen, 2);

		if (at >= cut)
		{
			if (young == NULL)
				break;
			if (young->id == RETENTION_NOWHERE.id)
				*young = *place;
		}
		place->id = spi_int8(n_seen, 1);
		place->at = at;
		if (spi_bool(n_seen, 3))
			ids[n_ids++] = place->id;
	}
	if (n_ids > 0)
		remove_rows(rule, ids, n_ids, cut, sum, now);
	AtEOXact_GUC(true, level);
	spi_end();
	return n_seen == rule->batch;
}

/* Add up what would go now by a rule. */
void
store_retention_count(int number, RetentionSum *sum, TimestampTz now)
{
	RetentionRule *rule = &rules[number];
	TimestampTz cut = rule_cut(rule, now);
	SpiArgs args = SPI_ARGS_INIT;

	if (cut == DT_NOBEGIN)
		return;
	spi_begin();
	spi_arg_int8(&args, 0);
	add_cuts(&args, cut, now);
	add_up(sum, (int) spi_read(&rule->count, &args, 0));
	spi_end();
}

/* Record that so many rows went by a rule since the last such record, and up to where. */
void
store_retention_checkpoint(int number, int64 rows, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT jsonb_build_object('until', $1, 'rows', $2, 'setting', 'gpu_orch.' || $3, 'value',"
		" current_setting('gpu_orch.' || $3))"
	};
	const RetentionRule *rule = &rules[number];
	TimestampTz cut = rule_cut(rule, now);
	SpiArgs args = SPI_ARGS_INIT;
	bool isnull;

	spi_begin();
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(cut), false);
	spi_arg_int8(&args, rows);
	spi_arg_text(&args, rule->setting_name);
	spi_read(&query, &args, 1);
	store_event("checkpoint", rule->relation, DatumGetJsonbP(spi_datum(0, 1, &isnull)), now);
	spi_end();
}

/*
 * Erase what a task that has ended was given and what it returned. The caller has its row locked.
 * False if that was done before.
 */
bool
store_retention_forget(int64 task_id, TimestampTz now)
{
	static SpiQuery query = { "WITH given AS (UPDATE gpu_orch.task t SET payload = " ERASED_PAYLOAD
							  ", traceparent = NULL"
							  "  WHERE t.id = $1 AND (" HAS_PAYLOAD
							  " OR t.traceparent IS NOT NULL) RETURNING 1),"
							  " returned AS (" ERASE_RESULTS(
								  "= $1") " RETURNING 1) "
										  "SELECT 1 FROM given UNION ALL SELECT 1 FROM returned" };
	SpiArgs args = SPI_ARGS_INIT;
	bool any;

	spi_begin();
	spi_arg_int8(&args, task_id);
	any = spi_run(&query, &args) > 0;
	spi_end();
	if (any)
		store_event("task_forgotten", psprintf(INT64_FORMAT, task_id), NULL, now);
	return any;
}
