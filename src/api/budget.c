/*
 * api/budget.c
 *	  For operators: how much may be spent.
 *
 * Changes rows and wakes the leader. A budget that is lowered ends no pod; it
 * stands in the way of the next one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/check.h"
#include "base/clock.h"
#include "base/errors.h"
#include "fmgr.h"
#include "base/inject.h"
#include "base/shmem.h"
#include "store/budget.h"
#include "store/event.h"
#include "store/installation.h"
#include "store/pool.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "base/wake.h"

/* No budget is larger than this, in dollars. */
#define MAX_AMOUNT 1000000000

API_FUNCTION(gpu_orch_set_budget);

static void
check_per(const char *per)
{
	if (strcmp(per, "hour") != 0 && strcmp(per, "day") != 0 && strcmp(per, "month") != 0)
		api_refuse("per", psprintf("\"%s\" is no period of a budget.", per),
				   "Use hour, day or month.");
}

static void
check_amount(Datum amount)
{
	double dollars = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, amount));

	if (!(dollars >= 0 && dollars <= MAX_AMOUNT))
		api_refuse("amount", "It is out of range.",
				   psprintf("Use dollars from 0 to %d, or null to remove the budget.", MAX_AMOUNT));
}

/*
 * SQL: set_budget(pool, per, amount, hard) -> void. Without a pool the budget is the
 * installation's, without an amount it is removed. Waits for who is creating pods.
 */
static Datum
gpu_orch_set_budget_body(PG_FUNCTION_ARGS)
{
	char *name = api_text_or_null(fcinfo, 0, "pool", MAX_NAME_LENGTH);
	char *per = api_text(fcinfo, 1, "per", MAX_NAME_LENGTH);
	bool hard = PG_ARGISNULL(3) || PG_GETARG_BOOL(3);
	TimestampTz now = clock_now();
	Installation installation;
	int32 pool = 0;
	char *said;

	api_begin_change();
	check_per(per);
	if (!PG_ARGISNULL(2))
		check_amount(PG_GETARG_DATUM(2));
	store_installation_ensure(&installation, now);
	store_installation_lock();
	if (name != NULL && !store_pool_find(name, true, &pool))
		ereport(ERROR,
				(errcode(ERRCODE_GPU_ORCH_UNKNOWN_OBJECT),
				 errmsg("pool \"%s\" does not exist", name),
				 errhint("The view gpu_orch.pools lists them.")));
	if (PG_ARGISNULL(2))
	{
		if (!store_budget_remove(pool, per, hard))
			PG_RETURN_VOID();
		said = psprintf("no %s %s budget", hard ? "hard" : "soft", per);
	}
	else
	{
		store_budget_set(pool, per, hard, PG_GETARG_DATUM(2), now);
		said = psprintf("%s dollars per %s, %s",
						DatumGetCString(DirectFunctionCall1(numeric_out, PG_GETARG_DATUM(2))), per,
						hard ? "hard" : "soft");
	}
	INJECT("budget.set");
	store_event("budget_set", name != NULL ? name : "installation", store_detail("budget", said),
				now);
	ForceSyncCommit();
	wake_at_commit(WAKE_DECIDE);
	PG_RETURN_VOID();
}
