/*
 * db/spi_util.c
 *	  Statements of our own, planned once for each backend, with typed arguments
 *	  and results.
 *
 * Callers are either SQL functions that run as the extension's owner under a
 * pinned search_path, or the leader; both name everything with its schema.
 * Results are read from the most recent statement, and pointers among them are
 * good until spi_end(); strings from spi_text() live in the context that was
 * current before spi_begin().
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "db/spi_util.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Add one argument of a type. */
void
spi_arg(SpiArgs *args, Oid type, Datum value, bool isnull)
{
	Assert(args->n < SPI_MAX_ARGS);
	args->types[args->n] = type;
	args->values[args->n] = value;
	args->nulls[args->n] = isnull ? 'n' : ' ';
	args->n++;
	args->nulls[args->n] = '\0';
}

/* Add a text argument; NULL is SQL's null. */
void
spi_arg_text(SpiArgs *args, const char *value)
{
	spi_arg(args, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

void
spi_arg_int8(SpiArgs *args, int64 value)
{
	spi_arg(args, INT8OID, Int64GetDatum(value), false);
}

void
spi_arg_int4(SpiArgs *args, int32 value)
{
	spi_arg(args, INT4OID, Int32GetDatum(value), false);
}

void
spi_arg_bool(SpiArgs *args, bool value)
{
	spi_arg(args, BOOLOID, BoolGetDatum(value), false);
}

/* Add a time; 0 is SQL's null, as everywhere in our structs. */
void
spi_arg_time(SpiArgs *args, TimestampTz value)
{
	spi_arg(args, TIMESTAMPTZOID, TimestampTzGetDatum(value), value == 0);
}

/* Add a jsonb argument; NULL is SQL's null. */
void
spi_arg_jsonb(SpiArgs *args, Jsonb *value)
{
	spi_arg(args, JSONBOID, value ? JsonbPGetDatum(value) : (Datum) 0, value == NULL);
}

/* Add an array of n texts. */
void
spi_arg_text_array(SpiArgs *args, char *const *texts, int n)
{
	Datum *items = palloc_extended((n + 1) * sizeof(Datum), MCXT_ALLOC_HUGE);

	for (int i = 0; i < n; i++)
		items[i] = CStringGetTextDatum(texts[i]);
	spi_arg(args, TEXTARRAYOID,
			PointerGetDatum(construct_array(items, n, TEXTOID, -1, false, TYPALIGN_INT)), false);
}

/* Add an array of n numbers of eight bytes, or of times: type says which. */
void
spi_arg_int8_array(SpiArgs *args, const int64 *numbers, int n, Oid type)
{
	Datum *items = palloc_extended((n + 1) * sizeof(Datum), MCXT_ALLOC_HUGE);

	for (int i = 0; i < n; i++)
		items[i] = Int64GetDatum(numbers[i]);
	spi_arg(args, get_array_type(type),
			PointerGetDatum(construct_array(items, n, type, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
			false);
}

/* The search_path of every statement of ours. */
#define PINNED_PATH "pg_catalog, pg_temp"

/* The level of settings under which spi_begin() pinned the search_path; 0: it did not. */
static int pin_level = 0;

/*
 * Begin a function whose statements run under the pinned search_path. The path costs more to
 * set than all else that a claim does, so spi_begin() pins it when a statement is run after
 * all. Returns what spi_pin_end() or spi_pin_forget() wants back.
 */
int
spi_pin_begin(void)
{
	int outer = pin_level;

	pin_level = 0;
	return outer;
}

/* End such a function: the caller's search_path is back. */
void
spi_pin_end(int outer)
{
	if (pin_level > 0)
		AtEOXact_GUC(true, pin_level);
	pin_level = outer;
}

/* End such a function by an error: the abort of the transaction brings the path back. */
void
spi_pin_forget(int outer)
{
	pin_level = outer;
}

/* The table of ours of that name; invalid if there is none. */
Oid
spi_table(const char *table)
{
	return get_relname_relid(table, get_namespace_oid("gpu_orch", false));
}

/*
 * Take the lock that writes to a table of ours need, until the end of the transaction.
 * For whoever reads the table before writing to it: what reads takes is a weaker lock, also
 * on the indexes, and to ask for more later can deadlock with REINDEX.
 */
void
spi_lock_for_write(const char *table)
{
	Oid relid = spi_table(table);

	if (OidIsValid(relid))
		LockRelationOid(relid, RowExclusiveLock);
}

/* The same unless somebody is in the way, or waits for a lock that would be; false then. */
bool
spi_try_lock_for_write(const char *table)
{
	Oid relid = spi_table(table);

	return !OidIsValid(relid) || ConditionalLockRelationOid(relid, RowExclusiveLock);
}

void
spi_begin(void)
{
	if (strcmp(namespace_search_path, PINNED_PATH) != 0)
	{
		int level = NewGUCNestLevel();

		if (pin_level == 0)
			pin_level = level;
		(void) set_config_option("search_path", PINNED_PATH, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "gpu_orch: SPI_connect failed");
}

void
spi_end(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "gpu_orch: SPI_finish failed");
}

/*
 * Run a statement for up to limit rows (0: all). The types of the first execution's arguments
 * are those of its plan; an execution with others is an error of ours.
 */
static uint64
execute(SpiQuery *query, SpiArgs *args, long limit)
{
	SpiArgs none = SPI_ARGS_INIT;
	int rc;

	if (args == NULL)
		args = &none;
	if (query->plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(query->sql, args->n, args->types);

		if (plan == NULL)
			elog(ERROR, "gpu_orch: could not prepare \"%s\": %s", query->sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		query->plan = plan;
		query->nargs = args->n;
		memcpy(query->types, args->types, args->n * sizeof(Oid));
	}
	else if (args->n != query->nargs ||
			 memcmp(args->types, query->types, args->n * sizeof(Oid)) != 0)
		elog(ERROR, "gpu_orch: \"%s\" was planned for arguments of other types", query->sql);

	rc = SPI_execute_plan(query->plan, args->values, args->nulls, false, limit);
	if (rc < 0)
		elog(ERROR, "gpu_orch: could not run \"%s\": %s", query->sql, SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * Run a statement that may write; it sees what this transaction did and what
 * others committed until now. Returns the number of rows.
 */
uint64
spi_run(SpiQuery *query, SpiArgs *args)
{
	return execute(query, args, 0);
}

/*
 * Read up to limit rows (0: all). Takes a fresh snapshot, as spi_run() does.
 */
uint64
spi_read(SpiQuery *query, SpiArgs *args, long limit)
{
	return execute(query, args, limit);
}

/* Run a statement that must write exactly one row; `what` names it in the error. */
void
spi_run_one(SpiQuery *query, SpiArgs *args, const char *what)
{
	uint64 rows = execute(query, args, 0);

	if (rows != 1)
		elog(ERROR, "gpu_orch: %s changed " UINT64_FORMAT " rows instead of one", what, rows);
}

/* The value of a result column, counted from 1. */
Datum
spi_datum(uint64 row, int column, bool *isnull)
{
	Assert(row < SPI_processed);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

bool
spi_null(uint64 row, int column)
{
	bool isnull;

	(void) spi_datum(row, column, &isnull);
	return isnull;
}

/* A bigint column; 0 where it is null. */
int64
spi_int8(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT8OID);
	return isnull ? 0 : DatumGetInt64(value);
}

/* An integer column; 0 where it is null. */
int32
spi_int4(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID);
	return isnull ? 0 : DatumGetInt32(value);
}

/* A boolean column; false where it is null. */
bool
spi_bool(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == BOOLOID);
	return isnull ? false : DatumGetBool(value);
}

/* A timestamptz column; 0 where it is null. */
TimestampTz
spi_time(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == TIMESTAMPTZOID);
	return isnull ? 0 : DatumGetTimestampTz(value);
}

/*
 * Any column as text, NULL where it is null; allocated in the context that was
 * current before spi_begin().
 */
char *
spi_text(uint64 row, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	char *copy;

	if (value == NULL)
		return NULL;
	copy = SPI_palloc(strlen(value) + 1);
	strcpy(copy, value);
	pfree(value);
	return copy;
}
