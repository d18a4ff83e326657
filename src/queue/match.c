/*
 * queue/match.c
 *	  Matching of a worker's capabilities against a task's requirements.
 *
 * Pure: no SPI, no settings, no clock, no shared memory; the same arguments
 * always give the same answer. It is on the way of a claim, so it builds text
 * only for a caller who asks for reasons. What it is given must have passed
 * queue/match_form.c's check, which bounds the recursion and the work here.
 */
#include "postgres.h"

#include "queue/match.h"
#include "queue/match_json.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* How much of a value is shown in a reason, in bytes. */
#define SHOWN_VALUE 200

/* What each operator wants, in the words of a reason. */
static const char *const operator_wants[] = {
	[OP_EQ] = "exactly ",	[OP_NE] = "anything but ", [OP_GT] = "more than ",
	[OP_GTE] = "at least ", [OP_LT] = "less than ",	   [OP_LTE] = "at most ",
	[OP_IN] = "one of ",	[OP_NIN] = "none of ",	   [OP_ANY] = "any of ",
	[OP_NOT] = "not ",
};

typedef struct Matching
{
	const char *kind; /* NULL: of no particular kind */
	List **reasons;	  /* NULL: only the verdict is wanted */
} Matching;

static bool demand_met(const Matching *m, JsonbValue *have, JsonbValue *want,
					   const MatchPath *path);

/* Append a value as a reason shows it: JSON, cut short where it is long. */
static void
append_shown(StringInfo out, const JsonbValue *value)
{
	StringInfoData text;

	initStringInfo(&text);
	if (value->type == jbvBinary)
		(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
	else
		match_append_scalar(&text, value);
	match_append_clipped(out, text.data, text.len, SHOWN_VALUE);
	pfree(text.data);
}

/*
 * Note why the worker does not do, if reasons are wanted: before, want (NULL:
 * nothing) and after make up what is wanted; have is NULL where the worker has
 * nothing of that name. Always returns false, the verdict.
 */
static bool
mismatch(const Matching *m, const MatchPath *path, const JsonbValue *have, const char *before,
		 const JsonbValue *want, const char *after)
{
	MatchReason *reason;
	StringInfoData key;
	StringInfoData sentence;

	if (m->reasons == NULL)
		return false;
	initStringInfo(&key);
	if (path == NULL)
		appendStringInfoString(&key, "capabilities");
	match_append_path(&key, path);
	initStringInfo(&sentence);
	appendStringInfo(&sentence, "%s: wants %s", key.data, before);
	if (want != NULL)
		append_shown(&sentence, want);
	appendStringInfo(&sentence, "%s, worker has ", after);
	if (have != NULL)
		append_shown(&sentence, have);
	else
		appendStringInfoString(&sentence, "none");
	reason = palloc(sizeof(MatchReason));
	reason->key = key.data;
	reason->sentence = sentence.data;
	*m->reasons = lappend(*m->reasons, reason);
	return false;
}

static int
compare_numbers(const JsonbValue *a, const JsonbValue *b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a->val.numeric),
											 NumericGetDatum(b->val.numeric)));
}

/* Equality of strings (byte for byte), numbers (16 is 16.0) and booleans. */
static bool
scalars_equal(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return compare_numbers(a, b) == 0;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		default:
			return false;
	}
}

/*
 * Is there, among what the worker has, one value that equals a wanted scalar, or
 * that meets a wanted object or array? What is not an array counts as one of one
 * element. Gives no reasons.
 */
static bool
contains(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	Matching quiet = { m->kind, NULL };
	JsonbIterator *it;
	JsonbValue element;
	bool found = false;

	if (have == NULL)
		return false;
	if (!match_is_array(have))
		return IsAJsonbScalar(want) ? scalars_equal(have, want) :
									  demand_met(&quiet, have, want, path);

	it = JsonbIteratorInit(have->val.binary.data);
	while (!found && match_next_element(&it, &element))
		found = IsAJsonbScalar(want) ? scalars_equal(&element, want) :
									   demand_met(&quiet, &element, want, path);
	match_stop_walk(it);
	return found;
}

/* A number: at least; a string or boolean: equal; against an array: an element of it. */
static bool
scalar_met(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	const char *before = "";
	bool met;

	if (have != NULL && match_is_array(have))
		return contains(m, have, want, path) ||
			mismatch(m, path, have, "", want, " among its values");

	if (want->type == jbvNumeric)
	{
		met = have != NULL && have->type == jbvNumeric && compare_numbers(have, want) >= 0;
		before = "at least ";
	}
	else
		met = have != NULL && scalars_equal(have, want);
	return met || mismatch(m, path, have, before, want, "");
}

/* Superset: each element that demands something must be among what the worker has. */
static bool
array_met(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	JsonbIterator *it = JsonbIteratorInit(want->val.binary.data);
	JsonbValue element;
	bool met = true;

	while ((met || m->reasons != NULL) && match_next_element(&it, &element))
	{
		if (!contains(m, have, &element, path) && !match_demands_nothing(&element))
			met = mismatch(m, path, have, "", &element, " among its values");
	}
	match_stop_walk(it);
	return met;
}

/* The value of the innermost key of a path in an object, in *space; NULL where it has none. */
static JsonbValue *
find_key(const JsonbValue *object, const MatchPath *path, JsonbValue *space)
{
	return getKeyJsonValueFromContainer(object->val.binary.data, path->key, path->len, space);
}

/*
 * The requirement "models". The worker's models are an object by kind, or a list
 * for every kind; so is what is wanted, where a list is for the task's own kind.
 * Without a kind, the models of any one kind will do.
 */
static bool
models_met(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	bool by_kind = have != NULL && match_is_object(have);
	Matching quiet = { m->kind, NULL };
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue value;
	JsonbValue models;
	bool met;
	bool any = false;

	if (match_is_object(want) && !match_is_operators(want))
	{
		it = JsonbIteratorInit(want->val.binary.data);
		met = true;
		while ((met || m->reasons != NULL) && match_next_pair(&it, &key, &value))
		{
			MatchPath here = { path, key.val.string.val, key.val.string.len };

			met &= demand_met(m, by_kind ? find_key(have, &here, &models) : have, &value, &here);
		}
		match_stop_walk(it);
		return met;
	}

	if (!by_kind)
		return demand_met(m, have, want, path);

	if (m->kind != NULL)
	{
		MatchPath here = { path, m->kind, strlen(m->kind) };

		return demand_met(m, find_key(have, &here, &models), want, &here);
	}

	met = false;
	it = JsonbIteratorInit(have->val.binary.data);
	while (!met && match_next_pair(&it, &key, &models))
	{
		any = true;
		met = demand_met(&quiet, &models, want, path);
	}
	match_stop_walk(it);
	if (!any)
		return demand_met(m, NULL, want, path);
	return met || mismatch(m, path, have, "", want, " for one kind");
}

/* Each key that the requirement names; have is an object, or NULL for one without keys. */
static bool
object_met(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	JsonbIterator *it = JsonbIteratorInit(want->val.binary.data);
	JsonbValue key;
	JsonbValue value;
	bool met = true;

	while ((met || m->reasons != NULL) && match_next_pair(&it, &key, &value))
	{
		MatchPath here = { path, key.val.string.val, key.val.string.len };
		JsonbValue space;
		JsonbValue *found = NULL;

		if (have != NULL)
			found = find_key(have, &here, &space);
		if (path == NULL && here.len == 6 && memcmp(here.key, "models", 6) == 0)
			met &= models_met(m, found, &value, &here);
		else
			met &= demand_met(m, found, &value, &here);
	}
	match_stop_walk(it);
	return met;
}

/* One operator with its operand, against what the worker has (NULL: nothing). */
static bool
operator_met(const Matching *m, JsonbValue *have, MatchOperator op, JsonbValue *operand,
			 const MatchPath *path)
{
	Matching quiet = { m->kind, NULL };
	bool met = false;
	JsonbIterator *it;
	JsonbValue item;

	switch (op)
	{
		case OP_EQ:
		case OP_NE:
			met = contains(m, have, operand, path) == (op == OP_EQ);
			break;
		case OP_GT:
		case OP_GTE:
		case OP_LT:
		case OP_LTE:
			if (have != NULL && have->type == jbvNumeric)
			{
				int order = compare_numbers(have, operand);

				met = op == OP_GT ? order > 0 :
					op == OP_GTE  ? order >= 0 :
					op == OP_LT	  ? order < 0 :
									order <= 0;
			}
			break;
		case OP_IN:
		case OP_NIN:
		case OP_ANY:
			it = JsonbIteratorInit(operand->val.binary.data);
			while (!met && match_next_element(&it, &item))
				met = op == OP_ANY ? demand_met(&quiet, have, &item, path) :
									 contains(m, have, &item, path);
			match_stop_walk(it);
			met = met == (op != OP_NIN);
			break;
		case OP_ALL:
			it = JsonbIteratorInit(operand->val.binary.data);
			met = true;
			while ((met || m->reasons != NULL) && match_next_element(&it, &item))
				met &= demand_met(m, have, &item, path);
			match_stop_walk(it);
			return met;
		case OP_EXISTS:
			return (have != NULL) == operand->val.boolean ||
				mismatch(m, path, have, operand->val.boolean ? "a value" : "no value", NULL, "");
		case OP_NOT:
			met = !demand_met(&quiet, have, operand, path);
			break;
		case OP_UNKNOWN:
			elog(ERROR, "requirements were not checked");
	}
	return met || mismatch(m, path, have, operator_wants[op], operand, "");
}

/* Does what the worker has under this path (NULL: nothing) meet what is wanted of it? */
static bool
demand_met(const Matching *m, JsonbValue *have, JsonbValue *want, const MatchPath *path)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue operand;
	bool met = true;

	if (have != NULL && have->type == jbvNull)
		have = NULL;
	if (want->type == jbvNull)
		return true;
	if (IsAJsonbScalar(want))
		return scalar_met(m, have, want, path);
	if (match_is_array(want))
		return array_met(m, have, want, path);

	if (match_is_operators(want))
	{
		it = JsonbIteratorInit(want->val.binary.data);
		while ((met || m->reasons != NULL) && match_next_pair(&it, &key, &operand))
			met &=
				operator_met(m, have, match_find_operator(key.val.string.val, key.val.string.len),
							 &operand, path);
		match_stop_walk(it);
		return met;
	}

	if (have == NULL || match_is_object(have))
		return object_met(m, have, want, path);
	if (match_is_array(have) && contains(m, have, want, path))
		return true;
	return match_demands_nothing(want) ||
		mismatch(m, path, have, "", want, match_is_array(have) ? " among its values" : "");
}

/*
 * May a worker with these capabilities take a task with these requirements and of
 * this kind? kind may be NULL: then it does not matter which kinds the worker
 * serves. With reasons, every mismatch is appended to *reasons as a palloc'd
 * MatchReason; without, the first one ends the search. Both jsonbs must have passed
 * their check; neither is kept.
 */
bool
match_satisfies(Jsonb *capabilities, Jsonb *requirements, const char *kind, List **reasons)
{
	Matching m = { kind, reasons };
	JsonbValue have;
	JsonbValue want;
	JsonbValue space;
	JsonbValue *services;
	bool met = true;

	JsonbToJsonbValue(capabilities, &have);
	JsonbToJsonbValue(requirements, &want);

	services = getKeyJsonValueFromContainer(&capabilities->root, "services", 8, &space);
	if (kind != NULL && services != NULL && services->type != jbvNull)
	{
		MatchPath path = { NULL, "services", 8 };
		JsonbValue wanted_kind;

		wanted_kind.type = jbvString;
		wanted_kind.val.string.val = unconstify(char *, kind);
		wanted_kind.val.string.len = strlen(kind);
		met = demand_met(&m, services, &wanted_kind, &path);
		if (!met && reasons == NULL)
			return false;
	}
	return demand_met(&m, &have, &want, NULL) && met;
}
