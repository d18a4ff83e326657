/*
 * queue/match_json.c
 *	  Walking through jsonb as matching sees it: nulls do not count, and an object
 *	  in requirements may be one of operators.
 *
 * A value that is an object or an array is always a jbvBinary here, as the
 * iterators return it when told to skip what is nested. Nothing here decides
 * whether a worker does.
 */
#include "postgres.h"

#include "queue/match_json.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"
#include "utils/numeric.h"

static const char *const operator_names[] = {
	[OP_EQ] = "$eq",   [OP_NE] = "$ne",	  [OP_GT] = "$gt",		   [OP_GTE] = "$gte",
	[OP_LT] = "$lt",   [OP_LTE] = "$lte", [OP_IN] = "$in",		   [OP_NIN] = "$nin",
	[OP_ALL] = "$all", [OP_ANY] = "$any", [OP_EXISTS] = "$exists", [OP_NOT] = "$not",
};

/*
 * The next element of an array, nulls left out: they ask for nothing and offer
 * nothing. False at the end, when the iterator is freed and set to NULL; a caller
 * that stops before frees it.
 */
bool
match_next_element(JsonbIterator **it, JsonbValue *element)
{
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(it, element, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && element->type != jbvNull)
			return true;
	}
	return false;
}

/* The same for the pairs of an object, in jsonb's order of keys. */
bool
match_next_pair(JsonbIterator **it, JsonbValue *key, JsonbValue *value)
{
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(it, key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(it, value, true);
		if (value->type != jbvNull)
			return true;
	}
	return false;
}

/* End a walk early; harmless after its end. */
void
match_stop_walk(JsonbIterator *it)
{
	if (it != NULL)
		pfree(it);
}

/* The operator of this name, OP_UNKNOWN for none. */
MatchOperator
match_find_operator(const char *key, int len)
{
	for (int op = 0; op < OP_UNKNOWN; op++)
	{
		if ((int) strlen(operator_names[op]) == len && memcmp(operator_names[op], key, len) == 0)
			return (MatchOperator) op;
	}
	return OP_UNKNOWN;
}

/* The name of an operator, with its $. */
const char *
match_operator_name(MatchOperator op)
{
	return operator_names[op];
}

/*
 * Is this object one of operators? The check refuses operators beside plain
 * keys, so that any key tells.
 */
bool
match_is_operators(const JsonbValue *object)
{
	JsonbIterator *it = JsonbIteratorInit(object->val.binary.data);
	JsonbValue key;
	bool result;

	(void) JsonbIteratorNext(&it, &key, true);
	result = JsonbIteratorNext(&it, &key, true) == WJB_KEY && key.val.string.len > 0 &&
		key.val.string.val[0] == '$';
	match_stop_walk(it);
	return result;
}

/*
 * Is this requirement met whatever the worker has? Null is, and so are arrays
 * and objects that hold nothing else. Operators always demand something.
 */
bool
match_demands_nothing(const JsonbValue *want)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue value;
	bool nothing = true;

	if (want->type != jbvBinary)
		return want->type == jbvNull;
	if (match_is_object(want) && match_is_operators(want))
		return false;
	it = JsonbIteratorInit(want->val.binary.data);
	while (nothing &&
		   (match_is_array(want) ? match_next_element(&it, &value) :
								   match_next_pair(&it, &key, &value)))
		nothing = match_demands_nothing(&value);
	match_stop_walk(it);
	return nothing;
}

/* Append at most so many bytes of a string, whole characters only, "..." for the rest. */
void
match_append_clipped(StringInfo out, const char *text, int len, int limit)
{
	appendBinaryStringInfo(out, text, pg_mbcliplen(text, len, limit));
	if (len > limit)
		appendStringInfoString(out, "...");
}

/* Append hardware.gpu_memory_gb; nothing for the top level. */
void
match_append_path(StringInfo out, const MatchPath *path)
{
	if (path == NULL)
		return;
	match_append_path(out, path->parent);
	if (path->parent != NULL)
		appendStringInfoChar(out, '.');
	match_append_clipped(out, path->key, path->len, MATCH_SHOWN_KEY);
}

/* Append a string, number or boolean as JSON; a number without superfluous zeros. */
void
match_append_scalar(StringInfo out, const JsonbValue *value)
{
	char *text;

	switch (value->type)
	{
		case jbvString:
			text = pnstrdup(value->val.string.val, value->val.string.len);
			escape_json(out, text);
			break;
		case jbvNumeric:
			text = numeric_normalize(value->val.numeric);
			appendStringInfoString(out, text);
			break;
		default:
			Assert(value->type == jbvBool);
			appendStringInfoString(out, value->val.boolean ? "true" : "false");
			return;
	}
	pfree(text);
}
