/*
 * api/pool.c
 *	  For operators: pools, workers and tenants.
 *
 * These functions change rows and wake the leader; none of them calls the
 * provider. What a pool may be is checked here; what its columns may hold is
 * checked by their types and constraints as well.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "catalog/pg_type_d.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "base/inject.h"
#include "queue/match.h"
#include "decide/scale.h"
#include "base/shmem.h"
#include "store/event.h"
#include "store/fleet.h"
#include "store/holder.h"
#include "store/offer.h"
#include "store/offer_stats.h"
#include "store/lease.h"
#include "store/op.h"
#include "store/tenant.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "base/wake.h"

#define MAX_GPU_TYPES 20
#define MAX_ENV 40
#define MAX_ENV_VALUE 8192
#define MAX_IMAGE_LENGTH 500
#define MAX_OPTIONS_BYTES 1048576
#define MAX_SPAWN 100
#define MAX_WORKERS 100000

API_FUNCTION(gpu_orch_create_pool);
API_FUNCTION(gpu_orch_alter_pool);
API_FUNCTION(gpu_orch_drop_pool);
API_FUNCTION(gpu_orch_spawn_worker);
API_FUNCTION(gpu_orch_drain_worker);
API_FUNCTION(gpu_orch_terminate_worker);
API_FUNCTION(gpu_orch_create_tenant);
API_FUNCTION(gpu_orch_alter_tenant);
API_FUNCTION(gpu_orch_grant_tenant);
API_FUNCTION(gpu_orch_revoke_tenant);
API_FUNCTION(gpu_orch_drop_tenant);
API_PURE_FUNCTION(gpu_orch_grant_holds);

static void
unknown(const char *what, const char *name, const char *view)
{
	ereport(ERROR,
			(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
			 errmsg("%s \"%s\" does not exist", what, name),
			 errhint("The view gpu_orch.%s lists them.", view)));
}

/*
 * Environment variables of a pod: names as a shell accepts them, none that we or
 * the provider set, none that change what the loader or an interpreter runs.
 */
static void
check_env(const JsonbValue *env)
{
	static const char *const refused[] = { "RUNPOD_",  "GPU_ORCH_", "LD_", "PATH", "PYTHONPATH",
										   "BASH_ENV", "ENV",		"IFS", NULL };
	JsonbIterator *iterator = JsonbIteratorInit(env->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue item;
	char *key = NULL;
	int n = 0;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			key = pnstrdup(item.val.string.val, item.val.string.len);
			if (++n > MAX_ENV)
				api_refuse("env", "It holds too many variables.",
						   psprintf("Pass at most %d.", MAX_ENV));
			if (key[0] == '\0' || strspn(key, "0123456789") > 0 ||
				strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") !=
					strlen(key))
				api_refuse("env", psprintf("\"%s\" is not a name of a variable.", key),
						   "Use letters, digits and underscores, not beginning with a digit.");
			for (int i = 0; refused[i] != NULL; i++)
			{
				size_t length = strlen(refused[i]);
				bool prefix = refused[i][length - 1] == '_' && strcmp(refused[i], "BASH_ENV") != 0;

				if (prefix ? strncmp(key, refused[i], length) == 0 : strcmp(key, refused[i]) == 0)
					api_refuse("env", psprintf("\"%s\" may not be set.", key),
							   "It is set by the provider, by gpu_orch, or would change which "
							   "programs run.");
			}
		}
		else if (token == WJB_VALUE &&
				 (item.type != jbvString || item.val.string.len > MAX_ENV_VALUE))
			api_refuse("env",
					   psprintf("The value of \"%s\" is not a string of at most %d bytes.", key,
								MAX_ENV_VALUE),
					   "Pass strings.");
	}
}

static void
check_count(const char *argument, int value)
{
	if (value < 0 || value > MAX_WORKERS)
		api_refuse(argument, psprintf("%d is out of range.", value),
				   psprintf("Use a value from 0 to %d.", MAX_WORKERS));
}

/* What the types of the columns do not say about an option. */
static void
pool_check_option(const char *option, JsonbValue *value)
{
	if (strcmp(option, "gpu_types") == 0 && value->type == jbvBinary &&
		JsonContainerIsArray(value->val.binary.data))
	{
		uint32 n = JsonContainerSize(value->val.binary.data);

		if (n < 1 || n > MAX_GPU_TYPES)
			api_refuse("gpu_types", psprintf("It names %u types.", n),
					   psprintf("Name 1 to %d types, in order of preference.", MAX_GPU_TYPES));
	}
	else if (strcmp(option, "image") == 0 && value->type == jbvString)
		api_check_text("image", pnstrdup(value->val.string.val, value->val.string.len),
					   MAX_IMAGE_LENGTH);
	else if (strcmp(option, "env") == 0 && value->type == jbvBinary &&
			 JsonContainerIsObject(value->val.binary.data))
		check_env(value);
	else if (strcmp(option, "capabilities") == 0 && value->type == jbvBinary)
		match_require_capabilities(JsonbValueToJsonb(value), "capabilities");
	else if (strcmp(option, "policy") == 0 && value->type == jbvString)
	{
		char *name = pnstrdup(value->val.string.val, value->val.string.len);
		PlanPolicy policy;

		if (!plan_policy_parse(name, &policy))
			api_refuse("policy", psprintf("\"%s\" is not a policy of this version.", name),
					   "Use queue_ratio, one_to_one or fixed.");
	}
	else if (strcmp(option, "policy_options") == 0 && value->type == jbvBinary &&
			 JsonContainerIsObject(value->val.binary.data))
	{
		PlanPool plan;
		const char *wrong;

		plan_pool_init(&plan);
		wrong = store_pool_read_policy_options(&plan, JsonbValueToJsonb(value));
		if (wrong != NULL)
			api_refuse("policy_options", psprintf("%s.", wrong), "See docs/scaling.md.");
	}
}

/*
 * Set all options of an object, which may be NULL. Returns their names, for the
 * record: values may be nobody else's business.
 */
static char *
pool_set_options(int32 pool, Jsonb *options)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	StringInfoData list;
	char **names;
	JsonbValue *values;
	const char *problem;
	int n = 0;
	int wrong = 0;

	initStringInfo(&list);
	if (options == NULL)
		return list.data;
	if (!JB_ROOT_IS_OBJECT(options))
		api_refuse("options", "It is not an object.",
				   "Pass an object, as in "
				   "{\"idle_timeout\": \"2 minutes\"}.");
	api_check_json("options", options, MAX_OPTIONS_BYTES);
	names = palloc((JB_ROOT_COUNT(options) + 1) * sizeof(char *));
	values = palloc((JB_ROOT_COUNT(options) + 1) * sizeof(JsonbValue));
	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			names[n] = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
		{
			pool_check_option(names[n], &item);
			appendStringInfo(&list, "%s%s", n > 0 ? ", " : "", names[n]);
			values[n++] = item;
		}
	}
	problem = store_pool_set_options(pool, n, names, values, &wrong);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" of a pool cannot be set: %s", names[wrong], problem),
				 errhint("docs/configuration.md lists the options of a pool.")));
	return list.data;
}

static void
check_gpu_types(ArrayType *gpu_types)
{
	Datum *elements;
	bool *nulls;
	int n;

	if (ARR_NDIM(gpu_types) > 1)
		api_refuse("gpu_types", "It has more than one dimension.", "Pass a plain array.");
	deconstruct_array(gpu_types, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n < 1 || n > MAX_GPU_TYPES)
		api_refuse("gpu_types", psprintf("It names %d types.", n),
				   psprintf("Name 1 to %d types, in order of preference.", MAX_GPU_TYPES));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			api_refuse("gpu_types", "It contains a null.", "Name each type.");
		api_check_text("gpu_types", TextDatumGetCString(elements[i]), MAX_NAME_LENGTH);
	}
}

/*
 * SQL: create_pool(name, image, gpu_types, min_workers, max_workers, options) ->
 * void
 */
static Datum
gpu_orch_create_pool_body(PG_FUNCTION_ARGS)
{
	char *name = api_text(fcinfo, 0, "name", 40);
	char *image = api_text(fcinfo, 1, "image", MAX_IMAGE_LENGTH);
	int min_workers = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3);
	int max_workers = PG_ARGISNULL(4) ? 10 : PG_GETARG_INT32(4);
	TimestampTz now = clock_now();
	Installation installation;
	int32 pool;

	shmem_require();
	if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(name))
		api_refuse("name", "It holds other characters than a-z, 0-9, _ and -.",
				   "Workers are named after their pool: use these characters only.");
	if (PG_ARGISNULL(2))
		api_refuse("gpu_types", "It is null.", "Name the types, in order of preference.");
	check_gpu_types(PG_GETARG_ARRAYTYPE_P(2));
	check_count("min_workers", min_workers);
	check_count("max_workers", max_workers);
	if (min_workers > max_workers && max_workers > 0)
		api_refuse("min_workers", "It is larger than max_workers.",
				   "Raise max_workers, or lower min_workers.");
	if (store_pool_find(name, true, &pool))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("pool \"%s\" exists already", name),
				 errhint("Change it with alter_pool(), or choose another name.")));
	store_installation_ensure(&installation, now);
	pool = store_pool_create(name, image, PG_GETARG_DATUM(2), min_workers, max_workers, now);
	(void) pool_set_options(pool, PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5));
	store_offer_make(pool);
	store_event("pool_created", name, NULL, now);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

/* The pool of that name, locked. */
static int32
lock_pool(const char *name)
{
	int32 pool;

	if (!store_pool_find(name, true, &pool))
		unknown("pool", name, "pools");
	return pool;
}

/* SQL: alter_pool(name, options) -> void */
static Datum
gpu_orch_alter_pool_body(PG_FUNCTION_ARGS)
{
	char *name = api_text(fcinfo, 0, "name", MAX_NAME_LENGTH);
	Jsonb *options = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	char *changed;
	int32 pool;

	shmem_require();
	pool = lock_pool(name);
	changed = pool_set_options(pool, options);
	store_offer_make(pool);
	store_offer_pool_altered(pool, name, clock_now());
	INJECT("pool.altered");
	store_event("pool_altered", name, store_detail("options", changed), clock_now());
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

/* SQL: drop_pool(name) -> void. Its workers drain and end; the name is free at once. */
static Datum
gpu_orch_drop_pool_body(PG_FUNCTION_ARGS)
{
	char *name = api_text(fcinfo, 0, "name", MAX_NAME_LENGTH);
	TimestampTz now = clock_now();
	int32 pool;

	shmem_require();
	pool = lock_pool(name);
	store_pool_drop(pool, now);
	store_offer_pool_altered(pool, name, now);
	store_event("pool_dropped", name, NULL, now);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

/*
 * SQL: spawn_worker(pool, count) -> setof text. Announces pods outside of the
 * pool's policy, within all its limits: all of them or none.
 */
static Datum
gpu_orch_spawn_worker_body(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = api_text(fcinfo, 0, "pool", MAX_NAME_LENGTH);
	int count = PG_ARGISNULL(1) ? 1 : PG_GETARG_INT32(1);
	TimestampTz now = clock_now();
	Installation installation;
	FleetPlan fleet;
	FleetPool *found = NULL;
	int32 pool;

	api_begin_change();
	if (count < 1 || count > MAX_SPAWN)
		api_refuse("count", psprintf("%d is out of range.", count),
				   psprintf("Use a value from 1 to %d.", MAX_SPAWN));
	store_installation_ensure(&installation, now);
	store_installation_lock();
	pool = lock_pool(name);
	if (installation.hold || installation.paused)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("no pod can be created: gpu_orch is %s",
						installation.hold ? "on hold" : "paused"),
				 errhint("Call %s().", installation.hold ? "adopt_installation" : "resume")));
	INJECT("spawn.locked");
	store_fleet_plan(&fleet, now);
	for (int i = 0; i < fleet.n_pools; i++)
		if (fleet.pools[i].row.id == pool)
			found = &fleet.pools[i];
	if (found != NULL && found->row.unreadable != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("no pod can be created for pool \"%s\": its row makes no sense", name),
				 errdetail("In short: %s.", found->row.unreadable),
				 errhint("Set what is wrong with alter_pool().")));
	if (found == NULL || found->plan.n_total + count > found->row.plan.max_workers)
		ereport(
			ERROR,
			(errcode(ERRCODE_GPU_ORCH_LIMIT),
			 errmsg("pool \"%s\" has no room for %d more workers", name, count),
			 errdetail("It has %d, counting those whose pods are in doubt or being deleted, and "
					   "may have %d.",
					   found ? found->plan.n_total : 0, found ? found->row.plan.max_workers : 0),
			 errhint("Raise max_workers with alter_pool().")));
	if (count > found->input.rate_room)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_LIMIT),
				 errmsg("the spawn rate limit leaves room for %d pods now", found->input.rate_room),
				 errhint("Wait a minute, or raise gpu_orch.spawn_rate_limit.")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < count; i++)
	{
		const char *refused = NULL;
		const char *id = store_fleet_intend(&found->row, &installation, 0, &refused, now);
		Datum value;
		bool isnull = false;

		if (id == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_GPU_ORCH_LIMIT),
					 errmsg("no pod can be created for pool \"%s\": %s", name, refused),
					 errhint("The view gpu_orch.offers shows the prices and which offers are "
							 "passed over for now.")));
		value = CStringGetTextDatum(id);
		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
	}
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	return (Datum) 0;
}

/* A move of a worker that an operator asks for. */
typedef struct Move
{
	WorkerRow worker;
	const char *cause;
	bool spares; /* not a worker that runs tasks */
	TimestampTz now;
} Move;

/* Move a worker, or raise GO004 with where it stands. */
static void
try_move(void *arg)
{
	Move *move = arg;

	if (move->spares && store_lease_count_worker(move->worker.no, 1) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("worker \"%s\" is running tasks", move->worker.id),
				 errhint("Use drain_worker() to let it finish, or pass force => true.")));
	if (store_worker_move(move->worker.no, move->cause, "by request", move->now) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("worker \"%s\" cannot do that now", move->worker.id),
				 errdetail("It is %s.", fsm_worker_state_name(move->worker.state)),
				 errhint("The view gpu_orch.worker_transition lists the legal moves.")));
}

/*
 * Lock the live worker of that name, called what in errors, which is to be ended or not: GO004 for one that has ended,
 * GO002 for an unknown one, 55P03 for one whose row somebody keeps.
 */
static void
lock_worker(const char *id, const char *what, bool ends, WorkerRow *worker)
{
	TimestampTz ended;
	char *cause;

	store_holder_demand_table(KEPT_WORKER, what);
	if (store_worker_find(id, false, worker))
	{
		store_holder_demand(KEPT_WORKER, worker->no, what, ends, clock_now());
		if (store_worker_lock(worker->no, worker) && worker->state != WS_TERMINATED)
			return;
	}
	if (!store_worker_ended(id, &ended, &cause))
		unknown("worker", id, "workers");
	ereport(ERROR,
			(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE), errmsg("worker \"%s\" has ended", id),
			 errdetail("It ended at %s: %s.", timestamptz_to_str(ended), cause ? cause : "unknown"),
			 errhint("Nothing is to be done for it. The view gpu_orch.workers lists those that "
					 "have not ended.")));
}

/*
 * Move the worker of that name. With ends, a session that has kept the worker's row for too long is ended.
 * 55P03 where a table is locked for longer than an operator waits.
 */
static void
move_worker(const char *id, const char *cause, bool ends, bool spares)
{
	char *what = psprintf("worker \"%s\"", id);
	Move move = { .cause = cause, .spares = spares };

	lock_worker(id, what, ends, &move.worker);
	move.now = clock_now();
	store_holder_demand_locks(try_move, &move, what);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
}

/* SQL: drain_worker(worker_id) -> void */
static Datum
gpu_orch_drain_worker_body(PG_FUNCTION_ARGS)
{
	api_begin_change();
	move_worker(api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH), "drain", false, false);
	PG_RETURN_VOID();
}

/*
 * SQL: terminate_worker(worker_id, force) -> void. A worker that holds leases is
 * ended only by force; its tasks go back to their places. Force also ends the session of a
 * transaction that has kept the worker's row for too long.
 */
static Datum
gpu_orch_terminate_worker_body(PG_FUNCTION_ARGS)
{
	bool force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	api_begin_change();
	move_worker(api_text(fcinfo, 0, "worker_id", MAX_NAME_LENGTH), "terminate", force, !force);
	PG_RETURN_VOID();
}

static int32
limit_argument(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return -1;
	if (PG_GETARG_INT32(arg) < 0)
		api_refuse("max_running", "It is negative.", "Use 0 to run nothing, or null for no limit.");
	return PG_GETARG_INT32(arg);
}

/* A weight, checked; (Datum) 0 for null. */
static Datum
weight_argument(FunctionCallInfo fcinfo, int arg)
{
	double weight;

	if (PG_ARGISNULL(arg))
		return (Datum) 0;
	weight = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, PG_GETARG_DATUM(arg)));
	if (!(weight >= 0.001 && weight <= 1000))
		api_refuse("weight", "It is not between 0.001 and 1000.",
				   "A tenant of weight 2 gets twice the share of one of weight 1.");
	return PG_GETARG_DATUM(arg);
}

/* SQL: create_tenant(name, max_running, weight) -> void */
static Datum
gpu_orch_create_tenant_body(PG_FUNCTION_ARGS)
{
	char *name = api_text(fcinfo, 0, "name", MAX_NAME_LENGTH);
	TimestampTz now = clock_now();
	Datum weight = weight_argument(fcinfo, 2);
	int32 tenant;

	shmem_require();
	if (weight == (Datum) 0)
		api_refuse("weight", "It is null.", "Leave it out for weight 1.");
	if (store_tenant_find(name, &tenant))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("tenant \"%s\" exists already", name),
				 errhint("Change it with alter_tenant(); \"default\" always exists and has no "
						 "limit.")));
	store_tenant_create(name, limit_argument(fcinfo, 1), weight, now);
	store_event("tenant_created", name, NULL, now);
	PG_RETURN_VOID();
}

static int32
tenant_argument(FunctionCallInfo fcinfo, int arg)
{
	char *name = api_text(fcinfo, arg, "tenant", MAX_NAME_LENGTH);
	int32 tenant;

	if (!store_tenant_find(name, &tenant))
		unknown("tenant", name, "tenant_usage");
	if (tenant == DEFAULT_TENANT)
		api_refuse("tenant", "The default tenant cannot be changed.",
				   "Make a tenant of your own with create_tenant().");
	return tenant;
}

/* SQL: alter_tenant(name, max_running, weight) -> void */
static Datum
gpu_orch_alter_tenant_body(PG_FUNCTION_ARGS)
{
	int32 tenant = tenant_argument(fcinfo, 0);

	shmem_require();
	store_tenant_change(tenant, limit_argument(fcinfo, 1), weight_argument(fcinfo, 2));
	store_event("tenant_altered", text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL, clock_now());
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

static void
change_grant(FunctionCallInfo fcinfo, bool grant)
{
	int32 tenant = tenant_argument(fcinfo, 0);
	char *role;
	Oid role_id;

	shmem_require();
	if (PG_ARGISNULL(1))
		api_refuse("role", "It is null.", "Name a role.");
	role = NameStr(*PG_GETARG_NAME(1));
	role_id = get_role_oid(role, !grant);
	if (grant)
		store_tenant_grant(tenant, role_id, role);
	else
		store_tenant_revoke(tenant, role_id, role);
	store_event(grant ? "tenant_granted" : "tenant_revoked", text_to_cstring(PG_GETARG_TEXT_PP(0)),
				store_detail("role", role), clock_now());
}

/* SQL: grant_tenant(tenant, role) -> void */
static Datum
gpu_orch_grant_tenant_body(PG_FUNCTION_ARGS)
{
	change_grant(fcinfo, true);
	PG_RETURN_VOID();
}

/* SQL: revoke_tenant(tenant, role) -> void */
static Datum
gpu_orch_revoke_tenant_body(PG_FUNCTION_ARGS)
{
	change_grant(fcinfo, false);
	PG_RETURN_VOID();
}

/* SQL: drop_tenant(tenant) -> void. Raises GO004 while a task of it waits or runs. */
static Datum
gpu_orch_drop_tenant_body(PG_FUNCTION_ARGS)
{
	int32 tenant = tenant_argument(fcinfo, 0);
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TimestampTz now = clock_now();

	api_begin_change();
	if (!store_tenant_drop(tenant, now))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_ILLEGAL_MOVE),
				 errmsg("tenant \"%s\" has tasks that wait or run", name),
				 errhint("Cancel them, or let them end. The view gpu_orch.tasks lists them.")));
	store_event("tenant_dropped", name, NULL, now);
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}

/* SQL: grant_holds(role_id oid, role name, cluster text) -> boolean */
Datum
gpu_orch_grant_holds(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(store_tenant_grant_holds(PG_GETARG_OID(0), NameStr(*PG_GETARG_NAME(1)),
											text_to_cstring(PG_GETARG_TEXT_PP(2))));
}
