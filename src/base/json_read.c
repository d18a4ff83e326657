/*
 * base/json_read.c
 *	  Reading JSON that a stranger wrote: a parse that reports instead of raising,
 *	  and getters that test the type of what they return.
 *
 * Works inside and outside of transactions and looks at no catalog: the grammar
 * and the numbers are the server's own (jsonb_in, numeric), the limits are ours.
 * The text must be UTF-8. A database of another encoding takes ASCII only, since
 * conversion needs a transaction. Duplicate keys: the last one wins; \u0000 and
 * lone surrogates are refused, as jsonb does. Must not decide what a field means.
 *
 * A getter returns NULL or false where the key is absent or of another type, and
 * leaves the caller's variable alone; what it returns is palloc'd in the caller's
 * context or points into the Jsonb.
 */
#include "postgres.h"

#include "base/json_read.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/*
 * Call a type's input function on a text. An error that it raises is cleared
 * away and its message returned, palloc'd in the caller's context; NULL if there
 * was none. Only for functions that neither wait nor look at a catalog: whatever
 * they raise concerns the text.
 */
static char *
read_quietly(PGFunction input, char *text, Datum *result)
{
	MemoryContext caller = CurrentMemoryContext;
	char *volatile error = NULL;

	PG_TRY();
	{
		*result = DirectFunctionCall3(input, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
									  Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		error = pstrdup(edata->message);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return error;
}

/*
 * Does the text nest deeper than we allow? Counts brackets outside of strings,
 * which is exact up to the first mistake, where the parser stops.
 */
static bool
is_too_deep(const char *data, size_t len)
{
	int depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++)
	{
		if (data[i] == '"')
			quoted = !quoted;
		else if (quoted)
			i += data[i] == '\\';
		else if (data[i] == '{' || data[i] == '[')
			depth++;
		else if (data[i] == '}' || data[i] == ']')
			depth--;
		if (depth > JSON_READ_MAX_DEPTH)
			return true;
	}
	return false;
}

/*
 * Why this text cannot pass between this database and the world, which speaks
 * UTF-8; NULL if it can.
 */
const char *
json_read_text_problem(const char *text, size_t len)
{
	int encoding = GetDatabaseEncoding();

	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		return "it is not valid UTF-8";
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return NULL;
	for (size_t i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(text[i]))
			return "it holds characters that this database's encoding may lack";
	}
	return NULL;
}

/*
 * Parse a JSON text. The value is palloc'd in the caller's context; NULL, with the
 * reason in *error, if it is not JSON or beyond our limits. The reason never quotes
 * the text. Raises nothing but out of memory.
 */
Jsonb *
json_read_parse(const char *data, size_t len, char **error)
{
	const char *problem;
	char *text;
	Datum value;

	*error = NULL;
	problem = len > JSON_READ_MAX_BYTES ? "it is too long" : json_read_text_problem(data, len);
	if (problem == NULL && is_too_deep(data, len))
		problem = "it is nested too deeply";
	if (problem != NULL)
	{
		*error = pstrdup(problem);
		return NULL;
	}
	text = pnstrdup(data, len);
	*error = read_quietly(jsonb_in, text, &value);
	pfree(text);
	return *error == NULL ? DatumGetJsonbP(value) : NULL;
}

/* The value's object; NULL if it is not one. */
JsonbContainer *
json_read_root(Jsonb *json)
{
	return JB_ROOT_IS_OBJECT(json) ? &json->root : NULL;
}

/* The value of a key of an object if it is of this type, NULL otherwise. */
static JsonbValue *
field(JsonbContainer *object, const char *key, enum jbvType type)
{
	JsonbValue *value;

	Assert(JsonContainerIsObject(object));
	value = getKeyJsonValueFromContainer(object, key, (int) strlen(key), NULL);
	return value != NULL && value->type == type ? value : NULL;
}

/* Is the key there with a value other than null? */
bool
json_read_has(JsonbContainer *object, const char *key)
{
	JsonbValue *value;

	Assert(JsonContainerIsObject(object));
	value = getKeyJsonValueFromContainer(object, key, (int) strlen(key), NULL);
	return value != NULL && value->type != jbvNull;
}

/* A string. */
char *
json_read_string(JsonbContainer *object, const char *key)
{
	JsonbValue *value = field(object, key, jbvString);

	return value != NULL ? pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

/* A boolean. */
bool
json_read_bool(JsonbContainer *object, const char *key, bool *value)
{
	JsonbValue *found = field(object, key, jbvBool);

	if (found == NULL)
		return false;
	*value = found->val.boolean;
	return true;
}

/* Three-way comparison of a numeric with an integer. */
static int
json_compare(Numeric number, int64 other)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(number),
											 NumericGetDatum(int64_to_numeric(other))));
}

/* A whole number that fits; 3.0 is one, 3.5 is not. */
bool
json_read_int64(JsonbContainer *object, const char *key, int64 *value)
{
	JsonbValue *found = field(object, key, jbvNumeric);
	int64 number;

	if (found == NULL || json_compare(found->val.numeric, PG_INT64_MIN) < 0 ||
		json_compare(found->val.numeric, PG_INT64_MAX) > 0)
		return false;
	number = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(found->val.numeric)));
	if (json_compare(found->val.numeric, number) != 0)
		return false;
	*value = number;
	return true;
}

/*
 * An amount of money written as a decimal number of dollars, in millionths of a
 * dollar, rounded up; false for what is negative or not to be believed.
 */
bool
json_read_micros(JsonbContainer *object, const char *key, int64 *micros)
{
	JsonbValue *found = field(object, key, jbvNumeric);
	Datum product;

	if (found == NULL || json_compare(found->val.numeric, 0) < 0 ||
		json_compare(found->val.numeric, JSON_READ_MAX_DOLLARS) > 0)
		return false;
	product = DirectFunctionCall2(numeric_mul, NumericGetDatum(found->val.numeric),
								  NumericGetDatum(int64_to_numeric(1000000)));
	*micros = DatumGetInt64(
		DirectFunctionCall1(numeric_int8, DirectFunctionCall1(numeric_ceil, product)));
	return true;
}

/* Whether there is a number below zero. */
bool
json_read_negative(JsonbContainer *object, const char *key)
{
	JsonbValue *found = field(object, key, jbvNumeric);

	return found != NULL && json_compare(found->val.numeric, 0) < 0;
}

/* A moment as RFC 3339 writes it; without a zone it is none. */
bool
json_read_time(JsonbContainer *object, const char *key, TimestampTz *value)
{
	char *text = json_read_string(object, key);
	size_t len = text != NULL ? strlen(text) : 0;
	Datum moment;

	/* The input function also knows words, other orders and the session's zone. */
	if (len < strlen("2000-01-01T00:00:00Z") || len > 40 ||
		strspn(text, "0123456789-T:.+Z") != len || text[4] != '-' || text[10] != 'T' ||
		(text[len - 1] != 'Z' && strpbrk(text + 19, "+-") == NULL) ||
		read_quietly(timestamptz_in, text, &moment) != NULL)
		return false;
	*value = DatumGetTimestampTz(moment);
	return true;
}

/* What a value nests, if it is an object (or an array) at all. */
static JsonbContainer *
nested(const JsonbValue *value, bool want_array)
{
	if (value == NULL || value->type != jbvBinary ||
		JsonContainerIsArray(value->val.binary.data) != want_array)
		return NULL;
	return value->val.binary.data;
}

/* An object. */
JsonbContainer *
json_read_object(JsonbContainer *object, const char *key)
{
	return nested(field(object, key, jbvBinary), false);
}

/* An array; JsonContainerSize tells its length. */
JsonbContainer *
json_read_array(JsonbContainer *object, const char *key)
{
	return nested(field(object, key, jbvBinary), true);
}

/* The element i (0..) of an array, if it is an object. */
JsonbContainer *
json_read_object_at(JsonbContainer *array, int i)
{
	return nested(getIthJsonbValueFromContainer(array, i), false);
}

/* The element i (0..) of an array, if it is a string. */
char *
json_read_string_at(JsonbContainer *array, int i)
{
	JsonbValue *value = getIthJsonbValueFromContainer(array, i);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}
