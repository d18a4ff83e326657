/*
 * api/match.c
 *	  satisfies(), match_reasons() and match_keys(): the rules of queue/match.c for SQL.
 *
 * All are immutable. They resolve nothing by name, read no table and no setting.
 */
#include "postgres.h"

#include "api/check.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "queue/match.h"
#include "utils/array.h"
#include "utils/builtins.h"

API_PURE_FUNCTION(gpu_orch_satisfies);
API_PURE_FUNCTION(gpu_orch_match_reasons);
API_PURE_FUNCTION(gpu_orch_match_keys);

/*
 * Match the three arguments that all functions have; reasons as for
 * match_satisfies(). Capabilities and requirements must not be null. Raises 22023
 * for those that cannot be matched.
 */
static bool
match_arguments(FunctionCallInfo fcinfo, List **reasons)
{
	Jsonb *capabilities = PG_GETARG_JSONB_P(0);
	Jsonb *requirements = PG_GETARG_JSONB_P(1);
	char *kind = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));

	match_require_capabilities(capabilities, "capabilities");
	match_require_requirements(requirements, "requirements");
	return match_satisfies(capabilities, requirements, kind, reasons);
}

/* SQL: satisfies(capabilities jsonb, requirements jsonb, kind text = null) -> boolean */
Datum
gpu_orch_satisfies(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(match_arguments(fcinfo, NULL));
}

/* The mismatches as an array: their keys, or their sentences. */
static Datum
mismatches(FunctionCallInfo fcinfo, bool keys)
{
	List *reasons = NIL;
	Datum *items;
	int count = 0;
	ListCell *cell;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (match_arguments(fcinfo, &reasons))
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));

	items = palloc(sizeof(Datum) * list_length(reasons));
	foreach (cell, reasons)
	{
		MatchReason *reason = lfirst(cell);

		items[count++] = CStringGetTextDatum(keys ? reason->key : reason->sentence);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(items, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* SQL: match_reasons(capabilities jsonb, requirements jsonb, kind text = null) -> text[] */
Datum
gpu_orch_match_reasons(PG_FUNCTION_ARGS)
{
	return mismatches(fcinfo, false);
}

/* SQL: match_keys(capabilities jsonb, requirements jsonb, kind text = null) -> text[] */
Datum
gpu_orch_match_keys(PG_FUNCTION_ARGS)
{
	return mismatches(fcinfo, true);
}
