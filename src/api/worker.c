/*
 * api/worker.c
 *	  For workers: register, say that one is alive, and take leave.
 *
 * A cloud worker registers with the token that its pod was given. The token works
 * until the worker is terminated, so that a container that restarts registers again, but
 * only for the worker's pod: the one that the provider named, or, until it has named
 * one, the one of the first registration. That one is a claim: nothing is deleted under
 * its id, and it gives way when the provider names another pod (store_worker_set_pod).
 * A registration is also a proof that a pod exists: it adopts the pod even if every
 * answer of the provider was lost.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "catalog/pg_type_d.h"
#include "base/caller.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "base/guc.h"
#include "base/inject.h"
#include "base/rivals.h"
#include "base/token.h"
#include "queue/match.h"
#include "store/alert.h"
#include "store/cancel.h"
#include "store/event.h"
#include "store/lease.h"
#include "store/op.h"
#include "store/spend.h"
#include "store/pool.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "base/wake.h"

#define MAX_STATS_BYTES 16384
#define MAX_HOLDING 10000
#define MAX_SLOTS 1000
#define MAX_BROKEN_BYTES 1000

API_FUNCTION(gpu_orch_register_worker);
API_FUNCTION(gpu_orch_heartbeat);
API_FUNCTION(gpu_orch_goodbye);

static void
refuse_registration(const char *worker_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("worker \"%s\" may not register with this token", worker_id),
			 errdetail("The token is wrong, belongs to another pod, or the worker is being ended."),
			 errhint("A pod uses the token from its own environment; an external worker registers "
					 "without one, by a role that is a member of gpu_orch_operator.")));
}

/* Refuse a pod id that the provider cannot have given out: it could not be sent to it. */
static void
check_pod_id(const char *pod_id)
{
	if (pod_id != NULL &&
		(pod_id[0] == '\0' ||
		 strspn(pod_id, "0123456789-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") !=
			 strlen(pod_id)))
		api_refuse("pod_id", "It has characters other than letters, digits, - and _, or none.",
				   "Pass the pod's id as the provider gives it, as in RUNPOD_POD_ID.");
}

/*
 * Let a cloud worker in. Its create is settled by this alone: a pod that speaks
 * with the op's token exists.
 */
static void
admit_cloud_worker(WorkerRow *worker, const char *token, const char *pod_id, TimestampTz now)
{
	WorkerProfile profile;
	CloudOpRow op;

	store_worker_profile(worker->no, &profile);
	if (token == NULL || !profile.has_registration ||
		!token_equal(token, profile.registration_digest))
		refuse_registration(worker->id);
	if (pod_id == NULL)
		api_refuse("pod_id", "It is null.",
				   "A pod's worker passes its pod id, as in RUNPOD_POD_ID, so that its token works "
				   "nowhere else.");
	if (profile.pod_id != NULL && strcmp(profile.pod_id, pod_id) != 0)
		refuse_registration(worker->id);
	if (worker->state == WS_TERMINATING)
		refuse_registration(worker->id);

	if (store_op_latest(worker->no, OP_CREATE, &op) &&
		(op.state == OP_SENT || op.state == OP_UNKNOWN))
	{
		store_op_answer(op.id, OP_DONE, 0, "registered", NULL, pod_id, 0, now);
		store_worker_set_pod(worker->no, pod_id, op.gpu_type, op.data_center, -1, now);
		store_spend_pod(worker->no, pod_id, -1, now);
	}
}

/* Refuse a worker beyond those that the caller's role may have at a time. */
static void
require_room_for_worker(const char *worker_id)
{
	if (store_worker_count_of(caller_name(), guc_max_workers) < guc_max_workers)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("worker \"%s\" is one too many for role \"%s\"", worker_id, caller_name()),
			 errdetail("The role has registered %d external workers that have not ended, the most "
					   "that gpu_orch.max_workers allows.",
					   guc_max_workers),
			 errhint("Call goodbye() or terminate_worker() for those that are gone, or raise "
					 "gpu_orch.max_workers.")));
}

/*
 * Let an external worker in, and make its row if there is none. False where another registration
 * has just made one: then the worker is to be looked for again.
 */
static bool
admit_external_worker(const char *worker_id, const char *token, bool exists, int32 pool,
					  WorkerRow *worker, TimestampTz now)
{
	if (token != NULL)
	{
		if (!exists || !worker->has_session || !token_equal(token, worker->session_digest))
			refuse_registration(worker_id);
		return true;
	}
	api_require_operator("register a worker without a token");
	if (!exists)
	{
		int64 no;

		require_room_for_worker(worker_id);
		no = store_worker_try_create(worker_id, WO_EXTERNAL, pool, WS_ACTIVE, now);
		if (no == 0)
			return false;
		store_worker_lock(no, worker);
		store_worker_set_registrar(no, caller_name());
		store_event_added("registered", worker_id, no, WS_ACTIVE,
						  store_detail("origin", "external"), now);
	}
	return true;
}

/* Whether a worker's session is alive, as far as its last heartbeat tells. */
static bool
is_alive(const WorkerRow *worker, TimestampTz now)
{
	int64 silence = Min(2 * (int64) guc_heartbeat_interval, (int64) guc_heartbeat_timeout) * 1000;

	return worker->has_session && worker->last_heartbeat <= now &&
		now - worker->last_heartbeat < silence;
}

/*
 * End the session that a worker has, and release its leases. Those count as lost, as the
 * process that held them is most likely gone, and a task that keeps killing its workers must
 * not go on for ever. Where two processes end each other's sessions they cost nothing, and
 * the one that comes later is refused in the end. A worker on a pod has no rival: the pod runs
 * one process at a time, and what comes of many restarts is judged by its list.
 */
static void
end_session(const WorkerRow *worker, const char *token, TimestampTz now)
{
	LeaseEnd end = { .outcome = OUTCOME_LOST, .error = "the worker registered again" };

	if (worker->origin == WO_EXTERNAL && is_alive(worker, now) &&
		(token == NULL || !token_equal(token, worker->session_digest)))
	{
		switch (rivals_take_over(worker->no, worker->created_at, worker->id, now))
		{
			case RIVAL_FIRST:
				break;
			case RIVAL_AGAIN:
				end.outcome = OUTCOME_RELEASED;
				break;
			case RIVAL_REFUSED:
				ereport(
					ERROR,
					(errcode(ERRCODE_GPU_ORCH_WORKER_IN_USE),
					 errmsg("another process works as worker \"%s\"", worker->id),
					 errdetail("Its last heartbeat came at %s, and its session was taken over "
							   "several times in a row.",
							   timestamptz_to_str(worker->last_heartbeat)),
					 errhint("Give each process an id of its own with GPU_ORCH_WORKER_ID. If the "
							 "other one is gone, this succeeds when it has been silent for long "
							 "enough.")));
		}
	}
	store_lease_end_all(LEASES_OF_SESSION, worker->no, 0, (Datum) 0, &end, now);
}

/*
 * SQL: register_worker(worker_id, token, capabilities, pool, pod_id, slots) ->
 * (worker_id, token, heartbeat_interval, pool)
 */
static Datum
gpu_orch_register_worker_body(PG_FUNCTION_ARGS)
{
	char *worker_id = api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH);
	char *token = api_text_or_null(fcinfo, 1, "token", MAX_NAME_LENGTH);
	Jsonb *capabilities = PG_ARGISNULL(2) ? api_empty_object() : PG_GETARG_JSONB_P(2);
	char *pool_name = api_text_or_null(fcinfo, 3, "pool", MAX_NAME_LENGTH);
	char *pod_id = api_text_or_null(fcinfo, 4, "pod_id", 64);
	TimestampTz now = clock_now();
	Installation installation;
	WorkerRow worker;
	int32 pool = 0;
	int32 slots = PG_NARGS() > 5 && !PG_ARGISNULL(5) ? PG_GETARG_INT32(5) : 1;
	char session[TOKEN_LENGTH + 1];
	Interval interval = { 0 };
	TupleDesc row_type;
	Datum values[4];
	bool nulls[4] = { false };
	bool exists;
	bool admitted;

	api_begin_change();
	check_pod_id(pod_id);
	match_require_capabilities(capabilities, "capabilities");
	if (slots < 1 || slots > MAX_SLOTS)
		api_refuse("slots", psprintf("%d is out of range.", slots),
				   psprintf("Pass how many tasks the worker takes at once, 1 to %d.", MAX_SLOTS));
	if (pool_name != NULL && !store_pool_find(pool_name, false, &pool))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("pool \"%s\" does not exist", pool_name),
				 errhint("The view gpu_orch.pools lists the pools.")));

	store_installation_ensure(&installation, now);
	do
	{
		CHECK_FOR_INTERRUPTS();
		exists = store_worker_find(worker_id, true, &worker);
		admitted = true;
		if (exists && worker.origin == WO_CLOUD)
		{
			admit_cloud_worker(&worker, token, pod_id, now);
			pool = worker.pool;
		}
		else
			admitted = admit_external_worker(worker_id, token, exists, pool, &worker, now);
	} while (!admitted);

	INJECT("register.begin");
	if (exists)
		end_session(&worker, token, now);
	if (store_worker_move(worker.no, "registered", NULL, now) == NULL)
		refuse_registration(worker_id);
	token_make(session);
	store_worker_register(&worker, capabilities,
						  match_shape_id(match_capabilities_canonical(capabilities)), pool, pod_id,
						  session, now);
	store_worker_set_slots(worker.no, slots);
	INJECT("register.bound");
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);

	INJECT("register.done");
	interval.time = (int64) guc_heartbeat_interval * 1000;
	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "gpu_orch: register_worker must return a row");
	values[0] = CStringGetTextDatum(worker_id);
	values[1] = CStringGetTextDatum(session);
	values[2] = IntervalPGetDatum(&interval);
	pool_name = pool == 0 ? NULL : store_pool_name(pool);
	nulls[3] = pool_name == NULL;
	values[3] = pool_name ? CStringGetTextDatum(pool_name) : (Datum) 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type), values, nulls)));
}

/* Release the leases that a worker does not name and has had time to learn of. */
static void
release_unnamed(const WorkerCall *worker, ArrayType *holding, TimestampTz now)
{
	LeaseEnd lost = { .outcome = OUTCOME_LOST,
					  .error = "the worker does not hold it: the answer to its claim was lost" };

	if (ARR_NDIM(holding) > 1 || ArrayGetNItems(ARR_NDIM(holding), ARR_DIMS(holding)) > MAX_HOLDING)
		api_refuse("holding", "It has more than one dimension or too many elements.",
				   "Pass the leases that the worker holds.");
	if (array_contains_nulls(holding))
		api_refuse("holding", "It contains a null.", "Pass the leases that the worker holds.");
	store_lease_end_all(LEASES_NOT_NAMED, worker->no, now - (int64) guc_heartbeat_interval * 1000,
						PointerGetDatum(holding), &lost, now);
}

/*
 * SQL: heartbeat(worker_id, token, stats, holding, acked) ->
 * (directive, cancelled, messages)
 */
static Datum
gpu_orch_heartbeat_body(PG_FUNCTION_ARGS)
{
	TimestampTz now = clock_now();
	WorkerCall worker;
	Jsonb *stats = NULL;
	TupleDesc row_type;
	Datum values[3];
	bool nulls[3] = { false };
	const char *directive = "continue";
	JsonbParseState *state = NULL;

	api_begin_change();
	if (!PG_ARGISNULL(2))
	{
		stats = PG_GETARG_JSONB_P(2);
		api_check_json("stats", stats, MAX_STATS_BYTES);
	}
	api_authenticate(api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH),
					 api_text(fcinfo, 1, "token", MAX_NAME_LENGTH), &worker);
	store_worker_heartbeat(worker.no, stats, now);
	if (!PG_ARGISNULL(3))
		release_unnamed(&worker, PG_GETARG_ARRAYTYPE_P(3), now);

	INJECT("heartbeat");
	if (worker.state == WS_DRAINING)
		directive = "drain";
	else if (worker.state != WS_ACTIVE)
		directive = "stop";

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "gpu_orch: heartbeat must return a row");
	values[0] = CStringGetTextDatum(directive);
	values[1] = store_cancel_of_worker(worker.no);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	values[2] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type), values, nulls)));
}

/*
 * SQL: goodbye(worker_id, token, broken) -> void. What the worker still holds goes back at
 * no cost before it is ended: it has not been lost.
 */
static Datum
gpu_orch_goodbye_body(PG_FUNCTION_ARGS)
{
	char *id = api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH);
	char *token = api_text(fcinfo, 1, "token", MAX_NAME_LENGTH);
	char *broken = api_text_or_null(fcinfo, 2, "broken", MAX_BROKEN_BYTES);
	TimestampTz now = clock_now();
	LeaseEnd end = { .outcome = OUTCOME_RELEASED, .error = "the worker took leave" };
	WorkerRow worker;
	const char *cause;

	api_begin_change();
	if (!store_worker_find(id, true, &worker) || !worker.has_session ||
		!token_equal(token, worker.session_digest))
		api_refuse_token(id);
	store_lease_end_all(LEASES_OF_SESSION, worker.no, 0, (Datum) 0, &end, now);
	INJECT("goodbye");
	if (broken != NULL)
		cause = "broken";
	else
		cause = worker.state == WS_DRAINING ? "drained" : "goodbye";
	/* one that is being ended already goes on its way */
	if (store_worker_move(worker.no, cause, broken, now) != NULL && broken != NULL)
		store_alert(ALERT_WORKER_BROKEN, id, broken, now);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}
