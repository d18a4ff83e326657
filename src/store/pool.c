/*
 * store/pool.c
 *	  Pools: all access to pool.
 *
 * The options of a pool are a table: each is a column with a type, and a JSON
 * value is turned into that type by an expression of its own. A dropped pool
 * stays, with max_workers 0, so that its pods are still ended by its rules.
 */
#include "postgres.h"

#include "base/guc.h"
#include "store/pool.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_INTEGER,
	OPTION_NUMERIC,
	OPTION_INTERVAL,
	OPTION_TEXTS,
	OPTION_OBJECT
} OptionType;

typedef struct PoolOption
{
	const char *name;
	OptionType type;
	bool nullable;
	const char *range; /* what the column's CHECK demands, in words; NULL: it has none */
} PoolOption;

static const PoolOption options[] = {
	{ "args", OPTION_TEXT, true, NULL },
	{ "budget_per_day", OPTION_NUMERIC, true, "from 0 to 1000000" },
	{ "budget_per_hour", OPTION_NUMERIC, true, "from 0 to 1000000" },
	{ "capabilities", OPTION_OBJECT, true, NULL },
	{ "cloud_type", OPTION_TEXT, false, "SECURE or COMMUNITY" },
	{ "container_disk_gb", OPTION_INTEGER, true, "at least 1" },
	{ "data_centers", OPTION_TEXTS, false, NULL },
	{ "drain_timeout", OPTION_INTERVAL, false, "0 or more" },
	{ "env", OPTION_OBJECT, false, NULL },
	{ "gpu_count", OPTION_INTEGER, false, "from 1 to 64" },
	{ "gpu_types", OPTION_TEXTS, false, NULL },
	{ "heartbeat_timeout", OPTION_INTERVAL, true, "more than 0" },
	{ "idle_buffer", OPTION_INTEGER, false, "0 or more" },
	{ "idle_timeout", OPTION_INTERVAL, false, "0 or more" },
	{ "image", OPTION_TEXT, false, NULL },
	{ "max_price_per_hour", OPTION_NUMERIC, true, "more than 0, and at most 1000000" },
	{ "max_worker_age", OPTION_INTERVAL, true, "0 or more" },
	{ "max_workers", OPTION_INTEGER, false,
	  "from 0 to 100000, and not below min_workers unless 0" },
	{ "min_cuda_version", OPTION_TEXT, true, NULL },
	{ "min_workers", OPTION_INTEGER, false, "0 or more, and not above max_workers" },
	{ "policy", OPTION_TEXT, false, "queue_ratio, one_to_one or fixed" },
	{ "policy_options", OPTION_OBJECT, false, NULL },
	{ "ports", OPTION_TEXTS, false, "without nulls" },
	{ "provider", OPTION_TEXT, false, "runpod" },
	{ "registry_id", OPTION_TEXT, true, NULL },
	{ "spawn_timeout", OPTION_INTERVAL, false, "more than 0" },
	{ "template_id", OPTION_TEXT, true, NULL },
	{ "volume_id", OPTION_TEXT, true, NULL },
	{ "volume_mount_path", OPTION_TEXT, true, NULL },
};

/*
 * How a jsonb value, the parameter that @ stands for, becomes a value of each
 * type, and what a caller must write.
 */
static const struct
{
	const char *expression;
	const char *wanted;
} conversions[] = {
	[OPTION_TEXT] = { "@ #>> '{}'", "a string" },
	[OPTION_INTEGER] = { "(@ #>> '{}')::int", "a whole number" },
	[OPTION_NUMERIC] = { "(@ #>> '{}')::numeric", "a number" },
	[OPTION_INTERVAL] = { "CASE pg_catalog.jsonb_typeof(@) WHEN 'number'"
						  " THEN pg_catalog.make_interval(secs => (@ #>> '{}')::float8)"
						  " ELSE (@ #>> '{}')::interval END",
						  "an interval as a string, or a number of seconds" },
	[OPTION_TEXTS] = { "ARRAY(SELECT pg_catalog.jsonb_array_elements_text(@))",
					   "an array of strings" },
	[OPTION_OBJECT] = { "@", "an object" },
};

/* Whether a JSON number is a whole one that a column of type int holds. */
static bool
is_integer(Numeric number)
{
	Datum value = NumericGetDatum(number);
	Datum least = NumericGetDatum(int64_to_numeric(PG_INT32_MIN));
	Datum most = NumericGetDatum(int64_to_numeric(PG_INT32_MAX));
	Datum whole = DirectFunctionCall2(numeric_trunc, value, Int32GetDatum(0));

	return DatumGetBool(DirectFunctionCall2(numeric_eq, value, whole)) &&
		DatumGetBool(DirectFunctionCall2(numeric_ge, value, least)) &&
		DatumGetBool(DirectFunctionCall2(numeric_le, value, most));
}

/* Whether a JSON value is an array of strings and nothing else. */
static bool
is_strings(const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		return false;
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM && element.type != jbvString)
			return false;
	return true;
}

static bool
fits(OptionType type, const JsonbValue *value)
{
	switch (type)
	{
		case OPTION_TEXT:
			return value->type == jbvString;
		case OPTION_INTEGER:
			return value->type == jbvNumeric && is_integer(value->val.numeric);
		case OPTION_NUMERIC:
			return value->type == jbvNumeric;
		case OPTION_INTERVAL:
			return value->type == jbvString || value->type == jbvNumeric;
		case OPTION_TEXTS:
			return is_strings(value);
		case OPTION_OBJECT:
			return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
	}
	return false;
}

/* Whether an option may have a value; returns NULL, or what is wrong with it. */
static const char *
option_problem(const char *name, const JsonbValue *value, const PoolOption **found)
{
	*found = NULL;
	for (int i = 0; i < lengthof(options); i++)
		if (strcmp(options[i].name, name) == 0)
			*found = &options[i];
	if (*found == NULL)
		return "there is no option of that name";
	if (value->type == jbvNull)
		return (*found)->nullable ? NULL : "it cannot be null";
	if (!fits((*found)->type, value))
		return psprintf("it must be %s", conversions[(*found)->type].wanted);
	return NULL;
}

/*
 * What a CHECK of the table demands, in words: of one column, after which it is named, or
 * of the two numbers of workers together.
 */
static const char *
explain_check(const char *constraint)
{
	for (int i = 0; constraint != NULL && i < lengthof(options); i++)
		if (options[i].range != NULL &&
			strcmp(constraint, psprintf("pool_%s_check", options[i].name)) == 0)
			return psprintf("\"%s\" must be %s.", options[i].name, options[i].range);
	return "\"max_workers\" must be from 0 to 100000, and \"min_workers\" not above it unless it is 0.";
}

/*
 * Run the statement. What a CHECK refuses is reported without the row, which
 * holds values that are nobody else's business.
 */
static void
run_update(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		if (SPI_execute_with_args(sql, n, types, values, nulls, false, 0) != SPI_OK_UPDATE ||
			SPI_processed != 1)
			elog(ERROR, "gpu_orch: the options of a pool could not be set");
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode != ERRCODE_CHECK_VIOLATION)
			ReThrowError(error);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the options of the pool contradict each other or are out of range"),
				 errdetail("%s", explain_check(error->constraint_name)),
				 errhint("docs/configuration.md lists the options of a pool and their ranges.")));
	}
	PG_END_TRY();
}

/*
 * Set options of a pool, all at once. Returns NULL, or what is wrong with one of
 * them, whose index is then in *wrong.
 */
const char *
store_pool_set_options(int32 pool, int n, char **names, JsonbValue *values, int *wrong)
{
	StringInfoData sql;
	Oid *types = palloc((n + 1) * sizeof(Oid));
	Datum *arguments = palloc((n + 1) * sizeof(Datum));
	char *nulls = palloc0(n + 2);

	if (n == 0)
		return NULL;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE gpu_orch.pool SET ");
	types[0] = INT4OID;
	arguments[0] = Int32GetDatum(pool);
	nulls[0] = ' ';
	for (int i = 0; i < n; i++)
	{
		const PoolOption *option;
		const char *problem = option_problem(names[i], &values[i], &option);

		if (problem != NULL)
		{
			*wrong = i;
			return problem;
		}
		appendStringInfo(&sql, "%s%s = ", i > 0 ? ", " : "", option->name);
		for (const char *c = conversions[option->type].expression; *c; c++)
		{
			if (*c == '@')
				appendStringInfo(&sql, "$%d", i + 2);
			else
				appendStringInfoChar(&sql, *c);
		}
		types[i + 1] = JSONBOID;
		arguments[i + 1] = JsonbPGetDatum(JsonbValueToJsonb(&values[i]));
		nulls[i + 1] = values[i].type == jbvNull ? 'n' : ' ';
	}
	appendStringInfoString(&sql, " WHERE id = $1");
	spi_begin();
	run_update(sql.data, n + 1, types, arguments, nulls);
	spi_end();
	return NULL;
}

/* The id of a pool that is not dropped; false if there is none of that name. */
bool
store_pool_find(const char *name, bool lock, int32 *pool)
{
	static SpiQuery plain = {
		"SELECT id FROM gpu_orch.pool WHERE name = $1 AND dropped_at IS NULL"
	};
	static SpiQuery locking = {
		"SELECT id FROM gpu_orch.pool WHERE name = $1 AND dropped_at IS NULL FOR NO KEY UPDATE"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_text(&args, name);
	found = spi_run(lock ? &locking : &plain, &args) == 1;
	if (found)
		*pool = spi_int4(0, 1);
	spi_end();
	return found;
}

/*
 * Lock a pool, dropped or not, until the end of the transaction. False if there is
 * none, or if somebody else has it: for the leader, which never waits for a person.
 */
bool
store_pool_lock(int32 pool)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.pool WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int4(&args, pool);
	found = spi_run(&query, &args) == 1;
	spi_end();
	return found;
}

/* The name of a pool, dropped or not; NULL if there is none of that id. */
char *
store_pool_name(int32 pool)
{
	static SpiQuery query = { "SELECT name FROM gpu_orch.pool WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	char *name = NULL;

	spi_begin();
	spi_arg_int4(&args, pool);
	if (spi_read(&query, &args, 1) == 1)
		name = spi_text(0, 1);
	spi_end();
	return name;
}

/* Add a pool; gpu_types is a text[]. A taken name is a 23505. */
int32
store_pool_create(const char *name, const char *image, Datum gpu_types, int32 min_workers,
				  int32 max_workers, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.pool (name, image, gpu_types, min_workers, max_workers, created_at)"
		" VALUES ($1, $2, $3, $4, $5, $6) RETURNING id"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int32 id;

	spi_begin();
	spi_arg_text(&args, name);
	spi_arg_text(&args, image);
	spi_arg(&args, TEXTARRAYOID, gpu_types, false);
	spi_arg_int4(&args, min_workers);
	spi_arg_int4(&args, max_workers);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "adding a pool");
	id = spi_int4(0, 1);
	spi_end();
	return id;
}

/* Drop a pool: nothing new for it, and its workers drain. */
void
store_pool_drop(int32 pool, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.pool SET dropped_at = $2, min_workers = 0, max_workers = 0 WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "dropping a pool");
	spi_end();
}

static Jsonb *
read_jsonb(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);
	struct varlena *detoasted;
	Jsonb *copy;

	if (isnull)
		return NULL;
	detoasted = PG_DETOAST_DATUM(value);
	copy = SPI_palloc(VARSIZE(detoasted));
	memcpy(copy, detoasted, VARSIZE(detoasted));
	return copy;
}

static double
read_seconds(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

static char **
read_texts(uint64 row, int column, int *n)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);
	Datum *elements;
	char **texts;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL,
					  n);
	texts = SPI_palloc((*n + 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
	{
		char *string = TextDatumGetCString(elements[i]);

		texts[i] = SPI_palloc(strlen(string) + 1);
		strcpy(texts[i], string);
	}
	return texts;
}

/*
 * Set what a policy_options object says. Returns NULL, or what is wrong with it.
 */
const char *
store_pool_read_policy_options(PlanPool *plan, Jsonb *policy_options)
{
	JsonbIterator *iterator = JsonbIteratorInit(&policy_options->root);
	JsonbIteratorToken token;
	JsonbValue item;
	char *key = NULL;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		const char *wrong = NULL;

		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
		{
			if (item.type != jbvNumeric)
				return psprintf("\"%s\" must be a number", key);
			wrong = plan_option_set(plan, key,
									DatumGetFloat8(DirectFunctionCall1(
										numeric_float8, NumericGetDatum(item.val.numeric))));
		}
		if (wrong != NULL)
			return psprintf("\"%s\": %s", key, wrong);
	}
	return NULL;
}

/* Whether a value is an object, or there is none. */
static bool
is_object(Jsonb *value)
{
	return value == NULL || JB_ROOT_IS_OBJECT(value);
}

/*
 * Look whether a pool's row says what the pool should be: it may come from an edit by
 * hand, or from a later version. If not, what is wrong with it is noted, and what
 * could not be read is as if it were not set. A dropped pool needs no more than is there.
 */
static void
check_row(PoolRow *pool)
{
	const char *wrong = NULL;

	if (pool->env == NULL || !is_object(pool->env))
		pool->unreadable = "its env is not an object";
	if (!is_object(pool->capabilities))
	{
		pool->capabilities = NULL;
		pool->unreadable = "its capabilities are not an object";
	}
	if (pool->policy_options == NULL || !is_object(pool->policy_options))
		pool->unreadable = "its policy_options are not an object";
	else
		wrong = store_pool_read_policy_options(&pool->plan, pool->policy_options);
	if (wrong != NULL)
		pool->unreadable = psprintf("its policy option %s", wrong);
	if (!plan_policy_parse(pool->policy, &pool->plan.policy))
		pool->unreadable = psprintf("its policy \"%s\" is not one of this version", pool->policy);
	if (pool->dropped)
		pool->unreadable = NULL;
}

/*
 * All pools that are not dropped, or dropped but with a worker left, in the order
 * in which demand is given to them. Allocated in the current memory context. One whose
 * row makes no sense says so in unreadable, and nobody may come for it or go for that.
 */
int
store_pool_list(PoolRow **pools)
{
#define SECONDS(column) "extract(epoch FROM " column ")::float8"
	static SpiQuery query = {
		"SELECT id, name, policy, min_workers, max_workers, idle_buffer, policy_options,"
		" " SECONDS("idle_timeout") ", " SECONDS("heartbeat_timeout") ", " /* 8, 9 */
		SECONDS("spawn_timeout") ", " SECONDS("drain_timeout") ", " SECONDS(
			"max_worker_age") ", coalesce(capabilities, (SELECT p.capabilities FROM gpu_orch.worker w" /* 13 */
							  "   JOIN gpu_orch.worker_profile p ON p.worker = w.no WHERE w.pool = pool.id"
							  "   AND p.registered_at IS NOT NULL ORDER BY w.no DESC LIMIT 1)),"
							  " coalesce((max_price_per_hour * 1000000)::bigint, -1), last_scale_in,"
							  " dropped_at IS NOT NULL, image, cloud_type, gpu_count, container_disk_gb, volume_id,"
							  " volume_mount_path, args, template_id, registry_id, min_cuda_version, ports, env "
							  "FROM gpu_orch.pool WHERE dropped_at IS NULL OR EXISTS (SELECT 1 FROM gpu_orch.worker w"
							  " WHERE w.pool = pool.id AND w.state <> 'terminated') ORDER BY id"
	};
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	*pools = SPI_palloc((n + 1) * sizeof(PoolRow));
	for (int i = 0; i < n; i++)
	{
		PoolRow *pool = &(*pools)[i];

		memset(pool, 0, sizeof(PoolRow));
		pool->id = spi_int4(i, 1);
		pool->name = spi_text(i, 2);
		plan_pool_init(&pool->plan);
		pool->policy = spi_text(i, 3);
		pool->plan.min_workers = spi_int4(i, 4);
		pool->plan.max_workers = spi_int4(i, 5);
		pool->plan.idle_buffer = spi_int4(i, 6);
		pool->policy_options = read_jsonb(i, 7);
		pool->plan.idle_timeout = read_seconds(i, 8);
		pool->plan.heartbeat_timeout =
			spi_null(i, 9) ? guc_heartbeat_timeout / 1000.0 : read_seconds(i, 9);
		pool->plan.spawn_timeout = read_seconds(i, 10);
		pool->plan.drain_timeout = read_seconds(i, 11);
		pool->plan.max_worker_age = read_seconds(i, 12);
		pool->capabilities = read_jsonb(i, 13);
		pool->max_price_micros = spi_int8(i, 14);
		pool->last_scale_in = spi_time(i, 15);
		pool->dropped = spi_bool(i, 16);
		pool->image = spi_text(i, 17);
		pool->cloud_type = spi_text(i, 18);
		pool->gpu_count = spi_int4(i, 19);
		pool->container_disk_gb = spi_int4(i, 20);
		pool->volume_id = spi_text(i, 21);
		pool->volume_mount_path = spi_text(i, 22);
		pool->args = spi_text(i, 23);
		pool->template_id = spi_text(i, 24);
		pool->registry_id = spi_text(i, 25);
		pool->min_cuda_version = spi_text(i, 26);
		pool->ports = read_texts(i, 27, &pool->n_ports);
		pool->env = read_jsonb(i, 28);
	}
	spi_end();
	for (int i = 0; i < n; i++)
		check_row(&(*pools)[i]);
	return n;
}

/* Note when a pool last gave up a worker. */
void
store_pool_scaled_in(int32 pool, TimestampTz now)
{
	static SpiQuery query = { "UPDATE gpu_orch.pool SET last_scale_in = $2 WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "noting a scale-in");
	spi_end();
}
