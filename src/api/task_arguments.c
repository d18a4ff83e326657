/*
 * api/task_arguments.c
 *	  What a task may be that an application submits: as arguments of submit_task(), or as an
 *	  object of submit_tasks().
 *
 * A task is checked completely before anything is stored. Who may submit for a tenant is decided
 * for the caller. Nothing here writes.
 */
#include "postgres.h"

#include "api/task_arguments.h"
#include "base/caller.h"
#include "base/clock.h"
#include "base/errors.h"
#include "base/guc.h"
#include "queue/match.h"
#include "store/tenant.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define MAX_ATTEMPTS 1000
#define MAX_PARENTS 1000

/* The tenant of that name, if the caller may submit for it; the two are not told apart. */
int32
task_tenant(const char *name)
{
	int32 tenant;

	api_check_text("tenant", name, MAX_NAME_LENGTH);
	if (!store_tenant_find(name, &tenant) || !store_tenant_allows(tenant, caller_role()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not submit for tenant \"%s\"", caller_name(), name),
				 errhint("An operator makes tenants with create_tenant() and lets a role use one "
						 "with grant_tenant().")));
	return tenant;
}

/* Whether a payload is what stands for one that was erased. */
static bool
says_erased(Jsonb *payload)
{
	JsonbValue space;
	JsonbValue *value;

	if (!JB_ROOT_IS_OBJECT(payload) || JB_ROOT_COUNT(payload) != 1)
		return false;
	value = getKeyJsonValueFromContainer(&payload->root, ERASED_KEY, strlen(ERASED_KEY), &space);
	return value != NULL && value->type == jbvString &&
		value->val.string.len == strlen(ERASED_VALUE) &&
		memcmp(value->val.string.val, ERASED_VALUE, strlen(ERASED_VALUE)) == 0;
}

/* Refuse anything about a task that cannot be, and give its timeout an absolute length. */
void
task_check(NewTask *task)
{
	int64 missing;

	api_check_text("kind", task->kind, MAX_NAME_LENGTH);
	if (task->kind[0] == ' ' || task->kind[strlen(task->kind) - 1] == ' ')
		api_refuse("kind", "It begins or ends with a blank.", "Leave the blank out.");
	api_check_json("payload", task->payload, guc_max_payload_bytes);
	if (says_erased(task->payload))
		api_refuse("payload", "It is what stands for an erased payload.", "Use any other value.");
	match_require_requirements(task->requirements, "requirements");
	if (task->priority < -MAX_PRIORITY || task->priority > MAX_PRIORITY)
		api_refuse("priority", psprintf("%d is out of range.", task->priority),
				   psprintf("Use a value from %d to %d.", -MAX_PRIORITY, MAX_PRIORITY));
	if (task->priority > guc_max_priority && !api_is_operator())
		api_refuse("priority", psprintf("%d is above gpu_orch.max_priority.", task->priority),
				   psprintf("Use a value of at most %d; only operators may use a higher one.",
							guc_max_priority));
	if (task->max_attempts < 1 || task->max_attempts > MAX_ATTEMPTS)
		api_refuse("max_attempts", psprintf("%d is out of range.", task->max_attempts),
				   psprintf("Use a value from 1 to %d.", MAX_ATTEMPTS));
	if (task->run_at != 0 && TIMESTAMP_NOT_FINITE(task->run_at))
		api_refuse("run_at", "It is infinite.", "Use a time that comes, or null for at once.");
	if (task->timeout != NULL &&
		DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(task->timeout),
										  IntervalPGetDatum(&(Interval){ 0 }))) <= 0)
		api_refuse("timeout", "It is not longer than zero.",
				   "Use a positive interval, or null for no limit.");
	if (task->timeout != NULL &&
		DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(task->timeout),
										  IntervalPGetDatum(&(Interval){ .month = 12 }))) > 0)
		api_refuse("timeout", "It is longer than a year.",
				   "Use a shorter interval, or null for no limit.");
	if (task->timeout != NULL)
	{
		Interval *absolute = palloc0(sizeof(Interval));

		absolute->time = interval_length(task->timeout);
		task->timeout = absolute;
	}
	if (task->idempotency_key != NULL)
		api_check_text("idempotency_key", task->idempotency_key, MAX_NAME_LENGTH);
	if (task->traceparent != NULL)
		api_check_text("traceparent", task->traceparent, MAX_NAME_LENGTH);
	if (task->n_parents > 0 &&
		!store_task_parents_exist(task->parents, task->n_parents, caller_role(), clock_now(),
								  &missing))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("task " INT64_FORMAT ", named in depends_on, does not exist", missing),
				 errhint("Submit the tasks that others depend on first.")));
}

static int
compare_int8(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* Set the parents of a task: sorted, each once. */
void
task_set_parents(NewTask *task, int64 *parents, int n)
{
	if (n > MAX_PARENTS)
		api_refuse("depends_on", psprintf("It names %d tasks.", n),
				   psprintf("Name at most %d.", MAX_PARENTS));
	qsort(parents, n, sizeof(int64), compare_int8);
	task->parents = parents;
	task->n_parents = 0;
	for (int i = 0; i < n; i++)
		if (i == 0 || parents[i] != parents[i - 1])
			parents[task->n_parents++] = parents[i];
}

/* A task without a kind, and with the defaults of submit_task(). */
void
task_default(NewTask *task)
{
	memset(task, 0, sizeof(NewTask));
	task->max_attempts = 3;
	task->payload = api_empty_object();
	task->requirements = api_empty_object();
	task->submitted_by = caller_name();
}

/* Arguments of submit_task() that have a column, and no effect yet. */
const char *const task_later_arguments[TASK_LATER_ARGUMENTS] = { "max_wait", "start_before",
																 "limit_key", "batch" };

/* Refuse one of these. */
void
task_refuse_later(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("argument \"%s\" is not served yet", argument),
			 errdetail("A task that was taken in with it would not be treated as it asks."),
			 errhint("Leave it out, or pass null.")));
}

/* A member of a task in submit_tasks(). */
typedef enum TaskKey
{
	KEY_DEPENDS_ON,
	KEY_IDEMPOTENCY_KEY,
	KEY_KIND,
	KEY_MAX_ATTEMPTS,
	KEY_PAYLOAD,
	KEY_PRIORITY,
	KEY_REQUIREMENTS,
	KEY_RUN_AT,
	KEY_TENANT,
	KEY_TIMEOUT,
	KEY_TRACEPARENT
} TaskKey;

static const char *const task_keys[] = { "depends_on",	 "idempotency_key", "kind",
										 "max_attempts", "payload",			"priority",
										 "requirements", "run_at",			"tenant",
										 "timeout",		 "traceparent" };

static char *
json_text(const char *key, const JsonbValue *value)
{
	if (value->type != jbvString)
		api_refuse(key, "It is not a string.", "Pass a JSON string.");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static int64
json_integer(const char *key, const JsonbValue *value, int64 least, int64 most)
{
	Datum number;

	if (value->type != jbvNumeric)
		api_refuse(key, "It is not a number.", "Pass a whole number.");
	number = NumericGetDatum(value->val.numeric);
	if (!DatumGetBool(DirectFunctionCall2(
			numeric_eq, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))))
		api_refuse(key, "It is not a whole number.", "Pass a whole number.");
	if (DatumGetBool(
			DirectFunctionCall2(numeric_lt, number, NumericGetDatum(int64_to_numeric(least)))) ||
		DatumGetBool(
			DirectFunctionCall2(numeric_gt, number, NumericGetDatum(int64_to_numeric(most)))))
		api_refuse(key, "It is out of range.",
				   psprintf("Use a value from " INT64_FORMAT " to " INT64_FORMAT ".", least, most));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

/* Copy a member that is itself JSON. */
static Jsonb *
json_json(const JsonbValue *value)
{
	return JsonbValueToJsonb(unconstify(JsonbValue *, value));
}

static void
json_parents(NewTask *task, const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	int64 *parents;
	int n = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		api_refuse("depends_on", "It is not an array.", "Pass an array of task ids.");
	parents = palloc((JsonContainerSize(value->val.binary.data) + 1) * sizeof(int64));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			parents[n++] = json_integer("depends_on", &item, 1, PG_INT64_MAX);
	task_set_parents(task, parents, n);
}

static void
set_member(NewTask *task, const char *key, const JsonbValue *value)
{
	int found = -1;

	for (int i = 0; i < lengthof(task_keys); i++)
		if (strcmp(task_keys[i], key) == 0)
			found = i;
	for (int i = 0; i < TASK_LATER_ARGUMENTS; i++)
		if (strcmp(task_later_arguments[i], key) == 0)
		{
			if (value->type != jbvNull)
				task_refuse_later(key);
			return;
		}
	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key \"%s\" of a task in \"tasks\" is not known", key),
				 errhint("The keys are those of the arguments of submit_task().")));
	if (value->type == jbvNull && found != KEY_PAYLOAD)
		return;

	switch ((TaskKey) found)
	{
		case KEY_DEPENDS_ON:
			json_parents(task, value);
			break;
		case KEY_IDEMPOTENCY_KEY:
			task->idempotency_key = json_text(key, value);
			break;
		case KEY_KIND:
			task->kind = json_text(key, value);
			break;
		case KEY_MAX_ATTEMPTS:
			task->max_attempts = (int32) json_integer(key, value, 1, MAX_ATTEMPTS);
			break;
		case KEY_PAYLOAD:
			task->payload = json_json(value);
			break;
		case KEY_PRIORITY:
			task->priority = (int32) json_integer(key, value, -MAX_PRIORITY, MAX_PRIORITY);
			break;
		case KEY_REQUIREMENTS:
			task->requirements = json_json(value);
			break;
		case KEY_RUN_AT:
			task->run_at = DatumGetTimestampTz(
				DirectFunctionCall3(timestamptz_in, CStringGetDatum(json_text(key, value)),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			break;
		case KEY_TENANT:
			task->tenant = task_tenant(json_text(key, value));
			break;
		case KEY_TIMEOUT:
		{
			char *text = value->type == jbvNumeric ?
				psprintf("%s seconds",
						 DatumGetCString(DirectFunctionCall1(
							 numeric_out, NumericGetDatum(value->val.numeric)))) :
				json_text(key, value);

			task->timeout = DatumGetIntervalP(
				DirectFunctionCall3(interval_in, CStringGetDatum(text),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			break;
		}
		case KEY_TRACEPARENT:
			task->traceparent = json_text(key, value);
			break;
	}
}

/* Read one object of submit_tasks(). */
void
task_read(NewTask *task, const JsonbValue *element)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	char *key = NULL;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		api_refuse("tasks", "An element is not an object.",
				   "Pass an array of objects, each a task.");
	task_default(task);
	iterator = JsonbIteratorInit(element->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
			set_member(task, key, &item);
	}
	if (task->kind == NULL)
		api_refuse("tasks", "A task has no \"kind\".", "Give each task the key \"kind\".");
	task_check(task);
}
