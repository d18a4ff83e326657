/*
 * store/budget.c
 *	  Budgets of pools and of the installation, and how much of each is used: all
 *	  access to budget and budget_state.
 *
 * A budget is for an hour, a day or a month, of a pool or of all pods together.
 * What counts is what was spent in the window, and all that bills, may bill or is
 * announced, until the window's end. Whether a create fits is decide/budget.c's affair;
 * where that is asked is store_fleet_intend().
 */
#include "postgres.h"

#include "store/budget.h"

/*
 * Read all budgets and how much of each is used now, with the changes of this transaction. A
 * caller that is about to create holds the lock of the installation, so that nobody else creates
 * meanwhile. Allocated in the current memory context.
 */
int
store_budget_list(BudgetRow **budgets)
{
	static SpiQuery query = {
		"SELECT b.pool, 'the ' || b.per || ' budget of the ' ||"
		" CASE WHEN b.pool IS NULL THEN 'installation' ELSE 'pool' END,"
		" coalesce('pool ' || p.name, 'the installation'), b.hard, b.amount_micros, b.spent_micros,"
		" b.rate_micros, ceil(extract(epoch FROM b.ends_at - b.at))::bigint"
		" FROM gpu_orch.budget_state b LEFT JOIN gpu_orch.pool p ON p.id = b.pool"
		" ORDER BY b.pool, b.per, b.hard"
	};
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	*budgets = SPI_palloc((n + 1) * sizeof(BudgetRow));
	for (int i = 0; i < n; i++)
	{
		BudgetRow *budget = &(*budgets)[i];

		budget->pool = spi_int4(i, 1);
		budget->name = spi_text(i, 2);
		budget->owner = spi_text(i, 3);
		budget->plan.hard = spi_bool(i, 4);
		budget->plan.amount = spi_int8(i, 5);
		budget->plan.spent = spi_int8(i, 6);
		budget->plan.rate = spi_int8(i, 7);
		budget->plan.seconds_left = spi_int8(i, 8);
	}
	spi_end();
	return n;
}

/* Set a budget, in dollars; pool 0 is the installation. The caller has checked the values. */
void
store_budget_set(int32 pool, const char *per, bool hard, Datum amount, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.budget (pool, per, hard, amount_micros, set_at)"
		" VALUES ($1, $2, $3, ($4 * 1000000)::bigint, $5) ON CONFLICT (pool, per, hard)"
		" DO UPDATE SET amount_micros = excluded.amount_micros, set_at = excluded.set_at"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_text(&args, per);
	spi_arg_bool(&args, hard);
	spi_arg(&args, NUMERICOID, amount, false);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "setting a budget");
	spi_end();
}

/* Remove a budget; false if there was none. */
bool
store_budget_remove(int32 pool, const char *per, bool hard)
{
	static SpiQuery query = {
		"DELETE FROM gpu_orch.budget WHERE pool IS NOT DISTINCT FROM $1 AND per = $2 AND hard = $3"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool removed;

	spi_begin();
	spi_arg(&args, INT4OID, Int32GetDatum(pool), pool == 0);
	spi_arg_text(&args, per);
	spi_arg_bool(&args, hard);
	removed = spi_run(&query, &args) == 1;
	spi_end();
	return removed;
}

/*
 * Return, as a phrase, a hard budget of a pool that what is spent and announced exceeds, or NULL.
 */
const char *
store_budget_broken(int32 pool)
{
	BudgetRow *budgets;
	int n = store_budget_list(&budgets);

	for (int i = 0; i < n; i++)
		if ((budgets[i].pool == 0 || budgets[i].pool == pool) && budgets[i].plan.hard &&
			plan_budget_left(&budgets[i].plan) < 0)
			return psprintf("%s is exceeded", budgets[i].name);
	return NULL;
}
