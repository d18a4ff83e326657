/*
 * queue/match_json.h
 *	  What queue/match.c and queue/match_form.c share: jsonb as matching sees it.
 */
#ifndef GPU_ORCH_MATCH_JSON_H
#define GPU_ORCH_MATCH_JSON_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* How much of a key is shown in a message, in bytes. */
#define MATCH_SHOWN_KEY 100

typedef enum MatchOperator
{
	OP_EQ,
	OP_NE,
	OP_GT,
	OP_GTE,
	OP_LT,
	OP_LTE,
	OP_IN,
	OP_NIN,
	OP_ALL,
	OP_ANY,
	OP_EXISTS,
	OP_NOT,
	OP_UNKNOWN
} MatchOperator;

/* The way from the top level to a value, innermost key first; NULL is the top level. */
typedef struct MatchPath
{
	const struct MatchPath *parent;
	const char *key; /* not terminated */
	int len;
} MatchPath;

static inline bool
match_is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

static inline bool
match_is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

extern bool match_next_element(JsonbIterator **it, JsonbValue *element);
extern bool match_next_pair(JsonbIterator **it, JsonbValue *key, JsonbValue *value);
extern void match_stop_walk(JsonbIterator *it);
extern MatchOperator match_find_operator(const char *key, int len);
extern const char *match_operator_name(MatchOperator op);
extern bool match_is_operators(const JsonbValue *object);
extern bool match_demands_nothing(const JsonbValue *want);
extern void match_append_clipped(StringInfo out, const char *text, int len, int limit);
extern void match_append_path(StringInfo out, const MatchPath *path);
extern void match_append_scalar(StringInfo out, const JsonbValue *value);

#endif
