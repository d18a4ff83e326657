/*
 * api/check.c
 *	  How a SQL-callable function runs, and what it checks before it does anything:
 *	  arguments, rights, tokens and the isolation level.
 *
 * One rule says who the caller is: the current user at the moment of the call. That is
 * neither who logged in nor who is further out, since code of one role runs in the session
 * of another: in views, in index expressions, for autovacuum. Our functions are therefore
 * SECURITY INVOKER, and api_run() makes the extension's owner the current user afterwards.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "base/caller.h"
#include "base/errors.h"
#include "catalog/pg_proc.h"
#include "db/ext_guard.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "base/shmem.h"
#include "base/token.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"

/*
 * Run the body of a function as the function's owner, for the role that called it, under the
 * pinned search_path. Schemas of version 0.1.0 declare the function SECURITY DEFINER: the
 * server has made the owner the current user then, and the caller is the outer user. Raises
 * 55000 where the library does not serve the schema.
 */
Datum
api_run(FunctionCallInfo fcinfo, PGFunction body)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Oid owner;
	bool is_definer;
	Oid user;
	int context;
	Oid outer_caller;
	int outer_pin;
	Datum result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "gpu_orch: function %u is not in the catalog", fcinfo->flinfo->fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	is_definer = ((Form_pg_proc) GETSTRUCT(tuple))->prosecdef;
	ReleaseSysCache(tuple);
	ext_require();

	GetUserIdAndSecContext(&user, &context);
	outer_caller = caller_set(is_definer ? GetOuterUserId() : user);
	outer_pin = spi_pin_begin();
	PG_TRY();
	{
		SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
		result = body(fcinfo);
		SetUserIdAndSecContext(user, context);
		spi_pin_end(outer_pin);
	}
	PG_CATCH();
	{
		/* The user and the search_path come back with the abort of the transaction. */
		spi_pin_forget(outer_pin);
		(void) caller_set(outer_caller);
		PG_RE_THROW();
	}
	PG_END_TRY();
	(void) caller_set(outer_caller);
	return result;
}

/* Whether two rows have columns of the same types. */
static bool
same_types(TupleDesc one, TupleDesc other)
{
	if (one->natts != other->natts)
		return false;
	for (int i = 0; i < one->natts; i++)
		if (TupleDescAttr(one, i)->atttypid != TupleDescAttr(other, i)->atttypid)
			return false;
	return true;
}

/*
 * Return the rows of a statement from a function that returns a set. The statement's
 * columns must be those of the function's result.
 */
void
api_return_rows(FunctionCallInfo fcinfo, SpiQuery *query, SpiArgs *args)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64 n;

	InitMaterializedSRF(fcinfo, 0);
	spi_begin();
	n = spi_read(query, args, 0);
	if (!same_types(SPI_tuptable->tupdesc, result->setDesc))
		elog(ERROR, "gpu_orch: \"%s\" returns other columns than its function", query->sql);
	for (uint64 row = 0; row < n; row++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[row]);
	spi_end();
}

/* Refuse an argument: 22023. */
void
api_refuse(const char *argument, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" is not valid", argument), errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* Refuse a text that is empty, too long, or holds control characters. */
void
api_check_text(const char *argument, const char *value, int max_bytes)
{
	if (value[0] == '\0')
		api_refuse(argument, "It is empty.", "Pass a value of at least one character.");
	if (strlen(value) > max_bytes)
		api_refuse(argument,
				   psprintf("It has %zu bytes; at most %d are accepted.", strlen(value), max_bytes),
				   "Shorten it.");
	for (const char *c = value; *c; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			api_refuse(argument, "It contains a control character.",
					   "Use printable characters only.");
}

/* A text argument that must be there. */
char *
api_text(FunctionCallInfo fcinfo, int arg, const char *argument, int max_bytes)
{
	char *value;

	if (PG_ARGISNULL(arg))
		api_refuse(argument, "It is null.", "Pass a value.");
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	api_check_text(argument, value, max_bytes);
	return value;
}

/* A text argument that may be null. */
char *
api_text_or_null(FunctionCallInfo fcinfo, int arg, const char *argument, int max_bytes)
{
	return PG_ARGISNULL(arg) ? NULL : api_text(fcinfo, arg, argument, max_bytes);
}

/* So many digits before the point, and after it, cost no more to print than to store. */
#define FEW_DIGITS 20

static Datum
power_of_ten(const char *text)
{
	MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);
	Datum number = DirectFunctionCall3(numeric_in, CStringGetDatum(text),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	MemoryContextSwitchTo(outer);
	return number;
}

/* Whether a number is smaller than a power of ten and has at most so many digits after the point. */
static bool
has_at_most(Datum number, int digits, Datum power)
{
	return DatumGetInt32(DirectFunctionCall1(numeric_scale, number)) <= digits &&
		DatumGetInt32(
			DirectFunctionCall2(numeric_cmp, DirectFunctionCall1(numeric_abs, number), power)) < 0;
}

/*
 * How many bytes a number takes as text; 0 for few digits. Refuses one of more digits than
 * MAX_DIGITS without making the text: a number of 8 bytes can have 131,072 digits.
 */
static size_t
printed_bytes(const char *argument, Datum number)
{
	static Datum few = (Datum) 0;
	static Datum many = (Datum) 0;

	if (few == (Datum) 0)
		few = power_of_ten("1e" CppAsString2(FEW_DIGITS));
	if (has_at_most(number, FEW_DIGITS, few))
		return 0;
	if (many == (Datum) 0)
		many = power_of_ten("1e" CppAsString2(MAX_DIGITS));
	if (!has_at_most(number, MAX_DIGITS, many))
		ereport(
			ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("argument \"%s\" holds a number that is too long", argument),
			 errdetail("At most %d digits are accepted before and after the point.", MAX_DIGITS),
			 errhint("Pass it as a string.")));
	return strlen(DatumGetCString(DirectFunctionCall1(numeric_out, number)));
}

static void
too_large(const char *argument, size_t bytes, const char *of_what, int max_bytes)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("argument \"%s\" is too large", argument),
			 errdetail("It has %zu bytes%s; at most %d are accepted.", bytes, of_what, max_bytes),
			 errhint("Store large data elsewhere and pass a reference, or raise "
					 "gpu_orch.max_payload_bytes.")));
}

/*
 * Check a container and those in it for their depth, and add the printed bytes of their long
 * numbers to *printed. Strings need no look: their text is at most six times as long.
 */
static void
check_container(const char *argument, JsonbContainer *container, int depth, size_t *printed,
				int max_bytes)
{
	uint32 n = JsonContainerSize(container) * (JsonContainerIsObject(container) ? 2 : 1);
	char *data = (char *) &container->children[n];
	uint32 offset = 0;

	if (depth > MAX_JSON_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is nested too deeply", argument),
				 errdetail("At most %d levels are accepted.", MAX_JSON_DEPTH),
				 errhint("Flatten it.")));
	for (uint32 i = 0; i < n; i++)
	{
		JEntry entry = container->children[i];

		if (JBE_ISCONTAINER(entry))
			check_container(argument, (JsonbContainer *) (data + INTALIGN(offset)), depth + 1,
							printed, max_bytes);
		else if (JBE_ISNUMERIC(entry))
		{
			*printed += printed_bytes(argument, PointerGetDatum(data + INTALIGN(offset)));
			if (*printed > max_bytes)
				too_large(argument, *printed, " in long numbers alone", max_bytes);
		}
		JBE_ADVANCE_OFFSET(offset, entry);
	}
}

/*
 * Refuse jsonb that is larger than max_bytes or deeper than MAX_JSON_DEPTH, and one whose
 * numbers take more than max_bytes as text: whoever reads it has it printed.
 */
void
api_check_json(const char *argument, Jsonb *value, int max_bytes)
{
	size_t printed = 0;

	if (VARSIZE(value) > max_bytes)
		too_large(argument, VARSIZE(value), "", max_bytes);
	check_container(argument, &value->root, 1, &printed, max_bytes);
}

/* The jsonb {}. */
Jsonb *
api_empty_object(void)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Begin a call that changes what others change too: preloading, a transaction that
 * may write (25006 on a standby, even where there is nothing to change), and an
 * isolation level that sees what they have just committed.
 */
void
api_begin_change(void)
{
	shmem_require();
	PreventCommandIfReadOnly("a function of gpu_orch that writes");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("this function needs the isolation level READ COMMITTED"),
				 errdetail("An older snapshot would hide tasks and leases that others changed."),
				 errhint("Call it outside of REPEATABLE READ and SERIALIZABLE transactions.")));
}

/* Raise 42501 for a session token that is not, or no longer, the worker's. */
void
api_refuse_token(const char *worker_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the token of worker \"%s\" is wrong or revoked", worker_id),
			 errhint("Call register_worker() again: it returns the token of a new session.")));
}

/*
 * Check a worker's session token. Raises 42501 for a worker that is not there, has
 * no session, or has another token; the three are not told apart.
 */
void
api_authenticate(const char *worker_id, const char *token, WorkerCall *worker)
{
	if (!store_worker_call(worker_id, worker) || !token_equal(token, worker->session_digest))
		api_refuse_token(worker_id);
}

/* Whether the caller is an operator. */
bool
api_is_operator(void)
{
	Oid operators = get_role_oid("gpu_orch_operator", true);

	return OidIsValid(operators) && has_privs_of_role(caller_role(), operators);
}

/* Raise 42501 unless the caller is an operator; `what` completes "only ... may". */
void
api_require_operator(const char *what)
{
	if (!api_is_operator())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not %s", caller_name(), what),
				 errhint("Ask an administrator to GRANT gpu_orch_operator.")));
}
