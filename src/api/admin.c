/*
 * api/admin.c
 *	  For operators: pause, end all, adopt, single cycles, and what the leader says of
 *	  itself.
 *
 * run_cycle() and reconcile_now() ask the leader and wait, bounded, for the cycle
 * that answers them; nothing here calls the provider.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "api/check.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "decide/fsm_worker.h"
#include "funcapi.h"
#include "base/guc.h"
#include "base/inject.h"
#include "miscadmin.h"
#include "base/shmem.h"
#include "base/value.h"
#include "store/fleet.h"
#include "store/holder.h"
#include "store/installation.h"
#include "store/kill.h"
#include "store/retention.h"
#include "store/tenant.h"
#include "store/usage.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/wait_event.h"
#include "base/wake.h"

/* How long a caller waits for the leader, in milliseconds. */
#define ANSWER_TIMEOUT_MS 60000

API_FUNCTION(gpu_orch_pause);
API_FUNCTION(gpu_orch_resume);
API_FUNCTION(gpu_orch_kill_fleet);
API_FUNCTION(gpu_orch_adopt_installation);
API_FUNCTION(gpu_orch_run_cycle);
API_FUNCTION(gpu_orch_reconcile_now);
API_FUNCTION(gpu_orch_explain_scaling);
API_FUNCTION(gpu_orch_count_usage);
API_FUNCTION(gpu_orch_prune);
API_PURE_FUNCTION(gpu_orch_acting_leader);
API_PURE_FUNCTION(gpu_orch_leader_status);
API_PURE_FUNCTION(gpu_orch_worker_rules);

/* SQL: acting_leader() -> bigint, for the record of who did something */
Datum
gpu_orch_acting_leader(PG_FUNCTION_ARGS)
{
	int64 epoch = store_installation_acting_epoch();

	if (epoch == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(epoch);
}

static void
set_paused(bool paused)
{
	shmem_require();
	store_installation_pause(paused, clock_now());
	INJECT("pause");
	if (!paused)
		shmem_look_first();
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
}

/* SQL: pause() -> void */
static Datum
gpu_orch_pause_body(PG_FUNCTION_ARGS)
{
	set_paused(true);
	PG_RETURN_VOID();
}

/* SQL: resume() -> void */
static Datum
gpu_orch_resume_body(PG_FUNCTION_ARGS)
{
	set_paused(false);
	PG_RETURN_VOID();
}

/*
 * SQL: kill_fleet() -> bigint. Stops creating, ends every worker with a pod, known or in
 * doubt, and returns how many deletes are owed now; later lists add what they find. Raises
 * GO004 on hold: this copy must not end the pods of another one. 55P03 where somebody keeps the
 * installation.
 */
static Datum
gpu_orch_kill_fleet_body(PG_FUNCTION_ARGS)
{
	TimestampTz now = clock_now();
	Installation installation;
	int64 owed;

	api_begin_change();
	store_holder_demand_table(KEPT_INSTALLATION, "the fleet");
	store_installation_ensure(&installation, now);
	if (installation.hold)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("no pod can be deleted: gpu_orch is on hold"),
				 errdetail("The pods may belong to another copy of this database."),
				 errhint("If this copy is to act, call adopt_installation() first.")));
	owed = store_kill_fleet(now);
	INJECT("kill_fleet");
	shmem_look_first();
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	if (owed < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(owed);
}

/* SQL: adopt_installation() -> void. Grants of another cluster are bound to the roles of their names. */
static Datum
gpu_orch_adopt_installation_body(PG_FUNCTION_ARGS)
{
	shmem_require();
	store_installation_adopt(clock_now());
	store_tenant_follow_roles(true, clock_now());
	shmem_look_first();
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

static void
no_leader(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_GPU_ORCH_NO_LEADER), errmsg("the leader of gpu_orch did not answer"),
			 errdetail("%s", detail),
			 errhint("See gpu_orch.status() and the server's log; gpu_orch.database and "
					 "gpu_orch.enabled decide whether a leader runs here.")));
}

/* Whether this is the database that the leader, if there is one, works in. */
static bool
is_leaders_database(void)
{
	return guc_database != NULL && strcmp(guc_database, get_database_name(MyDatabaseId)) == 0;
}

/*
 * Ask the leader through a pair of counters and wait until it has answered.
 */
static void
ask_leader(uint64 *asked, const uint64 *done)
{
	ShmemState *state = shmem_state();
	TimestampTz until = GetCurrentTimestamp() + ANSWER_TIMEOUT_MS * (int64) 1000;
	uint64 mine;

	if (!is_leaders_database())
		no_leader(psprintf("It works in database \"%s\".", guc_database));
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	mine = ++(*asked);
	LWLockRelease(state->lock);
	shmem_set_leader_latch();
	ConditionVariablePrepareToSleep(&state->answered);
	for (;;)
	{
		bool answered;
		bool alive;

		LWLockAcquire(state->lock, LW_SHARED);
		answered = *done >= mine;
		alive = state->leader_pid != 0;
		LWLockRelease(state->lock);
		if (answered)
			break;
		if (!alive || GetCurrentTimestamp() > until)
		{
			ConditionVariableCancelSleep();
			no_leader(alive ? "It is busy." : "It is not running in this server.");
		}
		ConditionVariableTimedSleep(&state->answered, 1000, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
push_number(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

/* {"actions": {...}, "status": {...}} */
static Jsonb *
cycle_json(const CycleSummary *cycle)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_key(&state, "actions");
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_number(&state, "workers_promoted", cycle->workers_promoted);
	push_number(&state, "workers_failed", cycle->workers_failed);
	push_number(&state, "workers_spawned", cycle->workers_spawned);
	push_number(&state, "workers_terminated", cycle->workers_terminated);
	push_number(&state, "tasks_reset", cycle->tasks_reset);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	push_key(&state, "status");
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_number(&state, "queued", cycle->queued);
	push_number(&state, "spawning", cycle->spawning);
	push_number(&state, "initializing", cycle->initializing);
	push_number(&state, "active", cycle->active);
	push_number(&state, "idle", cycle->idle);
	push_number(&state, "busy", cycle->busy);
	push_number(&state, "draining", cycle->draining);
	push_number(&state, "terminating", cycle->terminating);
	push_number(&state, "total", cycle->total);
	push_number(&state, "desired", cycle->desired);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * SQL: run_cycle(dry_run) -> jsonb. Has the leader run one cycle now and waits for
 * it; a dry run decides here, from what is visible here, and changes nothing.
 */
static Datum
gpu_orch_run_cycle_body(PG_FUNCTION_ARGS)
{
	ShmemState *state = shmem_state();
	CycleSummary cycle = { 0 };
	char error[SHMEM_TEXT];
	bool failed;

	shmem_require();
	if (!PG_ARGISNULL(0) && PG_GETARG_BOOL(0))
	{
		FleetPlan fleet;

		store_fleet_plan(&fleet, clock_now());
		cycle = fleet.summary;
	}
	else
	{
		ask_leader(&state->cycle_asked, &state->cycle_done);
		LWLockAcquire(state->lock, LW_SHARED);
		cycle = state->cycle;
		failed = state->cycle_failed;
		strlcpy(error, state->last_error, sizeof(error));
		LWLockRelease(state->lock);
		if (failed)
			ereport(
				ERROR,
				(errcode(ERRCODE_GPU_ORCH_NO_LEADER), errmsg("a step of the cycle failed"),
				 errdetail("%s", error),
				 errhint(
					 "The other steps were done. See gpu_orch.status() and the server's log.")));
	}
	PG_RETURN_JSONB_P(cycle_json(&cycle));
}

/*
 * SQL: reconcile_now() -> jsonb. Has the leader compare the provider's list with
 * our rows now and waits for it.
 */
static Datum
gpu_orch_reconcile_now_body(PG_FUNCTION_ARGS)
{
	ShmemState *state = shmem_state();
	JsonbParseState *json = NULL;
	ReconcileSummary seen;
	bool failed;
	char error[SHMEM_TEXT];

	shmem_require();
	ask_leader(&state->reconcile_asked, &state->reconcile_done);
	LWLockAcquire(state->lock, LW_SHARED);
	seen = state->reconcile;
	failed = state->reconcile_failed;
	strlcpy(error, state->api_error, sizeof(error));
	LWLockRelease(state->lock);
	if (failed)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the provider's list of pods could not be read"), errdetail("%s", error),
				 errhint("Nothing was changed. See gpu_orch.status().")));

	pushJsonbValue(&json, WJB_BEGIN_OBJECT, NULL);
	push_number(&json, "pods", seen.pods);
	push_number(&json, "foreign", seen.foreign);
	push_number(&json, "adopted", seen.adopted);
	push_number(&json, "orphans", seen.orphans);
	push_number(&json, "missing", seen.missing);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&json, WJB_END_OBJECT, NULL)));
}

/*
 * SQL: explain_scaling(pool) -> setof (term, value, bound, note). What the planner
 * would decide now, and every number that enters it.
 */
static Datum
gpu_orch_explain_scaling_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = api_text(fcinfo, 0, "pool", MAX_NAME_LENGTH);
	FleetPlan fleet;
	FleetPool *found = NULL;

	shmem_require();
	store_fleet_plan(&fleet, clock_now());
	for (int i = 0; i < fleet.n_pools; i++)
		if (strcmp(fleet.pools[i].row.name, name) == 0 && !fleet.pools[i].row.dropped)
			found = &fleet.pools[i];
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("pool \"%s\" does not exist, or no leader has been here yet", name),
				 errhint("The view gpu_orch.pools lists the pools.")));

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < found->plan.n_terms; i++)
	{
		const PlanTerm *term = &found->plan.terms[i];
		Datum values[4];
		bool nulls[4] = { false };

		values[0] = CStringGetTextDatum(term->name);
		values[1] = DirectFunctionCall1(float8_numeric, Float8GetDatum(term->value));
		values[2] = BoolGetDatum(term->bound);
		values[3] = CStringGetTextDatum(term->note);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* SQL: leader_status() -> one row, from shared memory; see its declaration. */
Datum
gpu_orch_leader_status(PG_FUNCTION_ARGS)
{
	ShmemState *shared = shmem_state();
	ShmemState state;
	TupleDesc row_type;
	Datum values[15];
	bool nulls[15] = { false };
	int i = 0;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "gpu_orch: leader_status must return a row");
	memset(&state, 0, sizeof(state));
	if (shared != NULL && is_leaders_database())
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		memcpy(&state, shared, sizeof(state));
		LWLockRelease(shared->lock);
	}
	values[i++] = BoolGetDatum(shared != NULL);
	nulls[i] = state.leader_pid == 0;
	values[i++] = Int32GetDatum(state.leader_pid);
	values[i] = value_text(state.leader_doing, &nulls[i]);
	i++;
	values[i] = value_time(state.leader_started, &nulls[i]);
	i++;
	values[i] = value_time(state.last_tick, &nulls[i]);
	i++;
	values[i++] = Int64GetDatum((int64) (shared ? pg_atomic_read_u64(&shared->ticks) : 0));
	values[i++] = Int64GetDatum(state.leader_memory);
	values[i++] = Int32GetDatum(state.failed_starts);
	values[i] = value_text(state.last_error, &nulls[i]);
	i++;
	values[i] = value_time(state.last_error_at, &nulls[i]);
	i++;
	values[i++] = BoolGetDatum(state.api_ok);
	values[i] = value_text(state.api_error, &nulls[i]);
	i++;
	values[i] = value_time(state.api_last_success, &nulls[i]);
	i++;
	values[i] = value_time(state.api_retry_at, &nulls[i]);
	i++;
	values[i] = value_time(state.last_reconcile, &nulls[i]);
	i++;
	Assert(i == lengthof(values));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type), values, nulls)));
}

/* SQL: count_usage() -> bigint. Adds the attempts that have ended to what was counted, as the leader does. */
static Datum
gpu_orch_count_usage_body(PG_FUNCTION_ARGS)
{
	int64 total = 0;
	int64 n;

	PreventCommandIfReadOnly("count_usage()");
	do
	{
		CHECK_FOR_INTERRUPTS();
		n = store_usage_count(clock_now());
		total += n;
	} while (n > 0);
	PG_RETURN_INT64(total);
}

/* The most rows of a rule's own relation that one call of prune() removes, give or take a window. */
#define PRUNE_MOST 10000

/* Remove by a rule what one call may, from the beginning on, and record it. */
static void
prune_rule(int rule, RetentionSum *sum, TimestampTz now)
{
	RetentionPlace place = RETENTION_BEGIN;
	RetentionPlace young = RETENTION_NOWHERE;

	while (store_retention_step(rule, &place, &young, sum, now) && sum->rows[0] < PRUNE_MOST)
		CHECK_FOR_INTERRUPTS();
	if (sum->rows[0] > 0)
		store_retention_checkpoint(rule, sum->rows[0], now);
}

/*
 * SQL: prune(dry_run) -> setof (relation, rows). What would be removed now; without dry_run, a
 * bounded part of it is.
 */
static Datum
gpu_orch_prune_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool dry_run = PG_GETARG_BOOL(0);
	RetentionSum total = { 0 };
	TimestampTz now = clock_now();

	if (!dry_run)
	{
		api_begin_change();
		for (int rule = 0; rule < RETENTION_RULES; rule++)
			store_retention_lock(rule);
	}
	for (int rule = 0; rule < RETENTION_RULES; rule++)
	{
		RetentionSum sum = { 0 };

		if (dry_run)
			store_retention_count(rule, &sum, now);
		else
			prune_rule(rule, &sum, now);
		for (int i = 0; i < sum.n; i++)
			store_retention_add(&total, sum.relation[i], sum.rows[i]);
	}
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < total.n; i++)
	{
		Datum values[2] = { CStringGetTextDatum(total.relation[i]), Int64GetDatum(total.rows[i]) };
		bool nulls[2] = { false };

		if (total.rows[i] > 0)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* SQL: worker_rules() -> the table of legal moves as the library has it. */
Datum
gpu_orch_worker_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n_worker_rules; i++)
	{
		const WorkerRule *rule = &worker_rules[i];
		Datum values[6];
		bool nulls[6] = { false };

		values[0] = Int32GetDatum(rule->rule);
		values[1] = CStringGetTextDatum(fsm_worker_state_name(rule->from));
		values[2] = CStringGetTextDatum(fsm_worker_state_name(rule->to));
		values[3] = CStringGetTextDatum(fsm_worker_origin_name(rule->origin));
		values[4] = CStringGetTextDatum(rule->cause);
		values[5] = CStringGetTextDatum(rule->comment);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
