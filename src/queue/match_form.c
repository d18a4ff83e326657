/*
 * queue/match_form.c
 *	  What is accepted as capabilities or requirements, and the canonical form
 *	  that makes equal requirements one shape.
 *
 * Pure like queue/match.c, and apart from the way of a claim. Only the check may be
 * given anything; it looks at size and depth before it goes down.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "queue/match.h"
#include "queue/match_json.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

typedef struct Checking
{
	bool is_requirements; /* else capabilities, where $ has no meaning */
	int nodes;			  /* keys and elements seen so far */
	char *hint;			  /* palloc'd, with the fault */
} Checking;

/* The path as a message names it, palloc'd: "hardware.gpu_memory_gb", or the top level. */
static char *
name_path(const MatchPath *path)
{
	StringInfoData out;

	if (path == NULL)
		return pstrdup("the top level");
	initStringInfo(&out);
	appendStringInfoChar(&out, '"');
	match_append_path(&out, path);
	appendStringInfoChar(&out, '"');
	return out.data;
}

/* Has this number at most MATCH_MAX_DIGITS digits before and after the point? */
static bool
number_fits(Numeric number)
{
	Datum value = NumericGetDatum(number);
	Datum limit =
		DirectFunctionCall3(numeric_in, CStringGetDatum("1e" CppAsString2(MATCH_MAX_DIGITS)),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	return DatumGetBool(
			   DirectFunctionCall2(numeric_lt, DirectFunctionCall1(numeric_abs, value), limit)) &&
		DatumGetInt32(DirectFunctionCall1(numeric_scale, value)) <= MATCH_MAX_DIGITS;
}

/*
 * What is wrong with an operator's operand, as the words after "wants"; NULL when
 * nothing is. The operand itself was checked before.
 */
static const char *
operand_fault(MatchOperator op, const JsonbValue *operand)
{
	bool of_scalars = op == OP_IN || op == OP_NIN;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue item;

	switch (op)
	{
		case OP_EQ:
		case OP_NE:
			return operand->type != jbvNull && IsAJsonbScalar(operand) ?
				NULL :
				"a string, a number or a boolean";
		case OP_GT:
		case OP_GTE:
		case OP_LT:
		case OP_LTE:
			return operand->type == jbvNumeric ? NULL : "a number";
		case OP_EXISTS:
			return operand->type == jbvBool ? NULL : "true or false";
		case OP_NOT:
			return match_demands_nothing(operand) ? "a requirement that demands something" : NULL;
		default:
			break;
	}

	if (!match_is_array(operand) || JsonContainerSize(operand->val.binary.data) == 0)
		return "an array that is not empty";
	it = JsonbIteratorInit(operand->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (of_scalars && (item.type == jbvNull || !IsAJsonbScalar(&item)))
			return "an array of strings, numbers and booleans";
		if (match_demands_nothing(&item))
			return "an array of requirements that each demand something";
	}
	return NULL;
}

/* One value and all below it. Returns what is wrong, palloc'd, or NULL. */
static char *
check_value(Checking *c, const JsonbValue *value, const MatchPath *path, int depth)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue item;
	MatchPath here = { path, NULL, 0 };
	MatchOperator op = OP_UNKNOWN;
	bool of_operators;
	char *fault;

	if (value->type == jbvNumeric && !number_fits(value->val.numeric))
	{
		c->hint = pstrdup("Use a larger unit or fewer digits.");
		return psprintf("the number at %s has more than %d digits before or after the point",
						name_path(path), MATCH_MAX_DIGITS);
	}
	if (value->type != jbvBinary)
		return NULL;
	if (depth > MATCH_MAX_DEPTH)
	{
		c->hint = pstrdup("Use fewer levels of objects and arrays.");
		return psprintf("%s is nested deeper than %d levels", name_path(path), MATCH_MAX_DEPTH);
	}

	of_operators = c->is_requirements && match_is_object(value) && match_is_operators(value);
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		if (token != WJB_KEY && token != WJB_VALUE && token != WJB_ELEM)
			continue;
		if (token != WJB_VALUE && ++c->nodes > MATCH_MAX_NODES)
		{
			c->hint = pstrdup("Name fewer keys and elements.");
			return psprintf("there are more than %d keys and elements", MATCH_MAX_NODES);
		}
		if (token == WJB_KEY)
		{
			here.key = item.val.string.val;
			here.len = item.val.string.len;
			if (c->is_requirements && of_operators != (here.len > 0 && here.key[0] == '$'))
			{
				c->hint = pstrdup("Put operators and plain keys into objects of their own, joined "
								  "by $all.");
				return psprintf("operators stand beside plain keys at %s", name_path(path));
			}
			if (!of_operators)
				continue;
			op = match_find_operator(here.key, here.len);
			if (op == OP_UNKNOWN)
			{
				StringInfoData name;

				initStringInfo(&name);
				match_append_clipped(&name, here.key, here.len, MATCH_SHOWN_KEY);
				c->hint =
					pstrdup("The operators are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $all, "
							"$any, $exists and $not.");
				return psprintf("unknown operator \"%s\" at %s", name.data, name_path(path));
			}
			continue;
		}

		fault =
			check_value(c, &item, token == WJB_VALUE && !of_operators ? &here : path, depth + 1);
		if (fault != NULL)
			return fault;
		if (of_operators && operand_fault(op, &item) != NULL)
		{
			c->hint = pstrdup("See the examples of each operator in docs/matching.md.");
			return psprintf("operator \"%s\" at %s wants %s", match_operator_name(op),
							name_path(path), operand_fault(op, &item));
		}
	}
	return NULL;
}

/* What requirements and capabilities have in common. */
static char *
check_document(Checking *c, Jsonb *document)
{
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(document))
	{
		c->hint = pstrdup("Pass an object, such as {\"hardware\": {\"gpu_memory_gb\": 24}}.");
		return pstrdup("the value is not an object");
	}
	if (VARSIZE(document) > MATCH_MAX_BYTES)
	{
		c->hint = pstrdup("Keep data that no worker or task is matched by elsewhere.");
		return psprintf("the value takes %d bytes, more than %d", (int) VARSIZE(document),
						MATCH_MAX_BYTES);
	}
	JsonbToJsonbValue(document, &value);
	return check_value(c, &value, NULL, 1);
}

/*
 * Are these requirements that can be matched? Returns NULL when they are, else
 * what is wrong, as a palloc'd message that names the key, and sets *hint.
 */
char *
match_check_requirements(Jsonb *requirements, char **hint)
{
	Checking c = { true, 0, NULL };
	char *fault = check_document(&c, requirements);

	*hint = c.hint;
	return fault;
}

/* The same for a worker's capabilities. */
char *
match_check_capabilities(Jsonb *capabilities, char **hint)
{
	Checking c = { false, 0, NULL };
	char *fault = check_document(&c, capabilities);
	JsonbValue space;
	JsonbValue *services;
	bool fine = true;

	*hint = c.hint;
	if (fault != NULL)
		return fault;

	services = getKeyJsonValueFromContainer(&capabilities->root, "services", 8, &space);
	if (services != NULL && match_is_array(services))
	{
		JsonbIterator *it = JsonbIteratorInit(services->val.binary.data);
		JsonbValue element;

		while (fine && match_next_element(&it, &element))
			fine = element.type == jbvString;
		match_stop_walk(it);
	}
	else if (services != NULL)
		fine = services->type == jbvNull || services->type == jbvString;
	if (fine)
		return NULL;
	*hint = pstrdup("List the kinds that the worker serves, or leave the key out to serve every "
					"kind.");
	return pstrdup("\"services\" is not an array of strings");
}

static void
raise_fault(const char *argument, const char *fault, const char *hint)
{
	if (fault == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid argument \"%s\": %s", argument, fault),
			 errdetail("What is matched is an object of at most %d bytes, %d levels, and %d keys "
					   "and elements.",
					   MATCH_MAX_BYTES, MATCH_MAX_DEPTH, MATCH_MAX_NODES),
			 errhint("%s", hint)));
}

/* Raise 22023, naming the argument, for requirements that cannot be matched. */
void
match_require_requirements(Jsonb *requirements, const char *argument)
{
	char *hint;
	char *fault = match_check_requirements(requirements, &hint);

	raise_fault(argument, fault, hint);
}

/* The same for capabilities. */
void
match_require_capabilities(Jsonb *capabilities, const char *argument)
{
	char *hint;
	char *fault = match_check_capabilities(capabilities, &hint);

	raise_fault(argument, fault, hint);
}

/* ---- Canonical forms ---- */

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * Append the canonical form of a value. Keys come in jsonb's own order; an array
 * is a set: sorted, each element once. Left out is what means nothing: nulls,
 * and from requirements also what demands nothing.
 */
static void
append_canonical(StringInfo out, const JsonbValue *value, bool is_requirements)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue item;
	char **elements;
	int count = 0;
	const char *separator = "";

	if (value->type != jbvBinary)
	{
		match_append_scalar(out, value);
		return;
	}

	it = JsonbIteratorInit(value->val.binary.data);
	if (match_is_object(value))
	{
		appendStringInfoChar(out, '{');
		while (match_next_pair(&it, &key, &item))
		{
			if (is_requirements && match_demands_nothing(&item))
				continue;
			appendStringInfoString(out, separator);
			match_append_scalar(out, &key);
			appendStringInfoChar(out, ':');
			append_canonical(out, &item, is_requirements);
			separator = ",";
		}
		appendStringInfoChar(out, '}');
		return;
	}

	elements = palloc(sizeof(char *) * (JsonContainerSize(value->val.binary.data) + 1));
	while (match_next_element(&it, &item))
	{
		StringInfoData element;

		if (is_requirements && match_demands_nothing(&item))
			continue;
		initStringInfo(&element);
		append_canonical(&element, &item, is_requirements);
		elements[count++] = element.data;
	}
	qsort(elements, count, sizeof(char *), compare_texts);
	appendStringInfoChar(out, '[');
	for (int i = 0; i < count; i++)
	{
		if (i > 0 && strcmp(elements[i], elements[i - 1]) == 0)
			continue;
		appendStringInfoString(out, separator);
		appendStringInfoString(out, elements[i]);
		separator = ",";
	}
	appendStringInfoChar(out, ']');
	for (int i = 0; i < count; i++)
		pfree(elements[i]);
	pfree(elements);
}

/* Append a string as JSON, null for NULL. */
static void
append_nullable(StringInfo out, const char *text)
{
	if (text == NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, text);
}

/*
 * The canonical form of a requirement class, palloc'd: a JSON array of kind,
 * requirements and isolation (NULL: none). Requirements that differ only in what
 * matching does not look at (order, repetition, the spelling of numbers, what
 * demands nothing) have one form, and one form always has one verdict. The
 * requirements must have passed their check.
 */
char *
match_canonical(const char *kind, Jsonb *requirements, const char *isolation)
{
	StringInfoData out;
	JsonbValue value;

	JsonbToJsonbValue(requirements, &value);
	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	append_nullable(&out, kind);
	appendStringInfoChar(&out, ',');
	append_canonical(&out, &value, true);
	appendStringInfoChar(&out, ',');
	append_nullable(&out, isolation);
	appendStringInfoChar(&out, ']');
	return out.data;
}

/* The canonical form of a worker's capabilities, palloc'd. They must have passed their check. */
char *
match_capabilities_canonical(Jsonb *capabilities)
{
	StringInfoData out;
	JsonbValue value;

	JsonbToJsonbValue(capabilities, &value);
	initStringInfo(&out);
	append_canonical(&out, &value, false);
	return out.data;
}

/*
 * The id of a canonical form: the first 64 bits of its SHA-256, big end first.
 * Never 0, which stands for no shape. Two forms may share an id: compare the form.
 */
int64
match_shape_id(const char *canonical)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	uint64 id;

	if (pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) canonical, strlen(canonical)) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	memcpy(&id, digest, sizeof(id));
	id = pg_ntoh64(id);
	return id == 0 ? 1 : (int64) id;
}
