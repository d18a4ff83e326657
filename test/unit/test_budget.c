/*
 * test_budget.c
 *	  What a budget leaves: rounding, overdrawing, numbers that do not fit.
 */
#include <limits.h>

#include "decide/budget.h"
#include "unit.h"

static PlanBudget
budget_of(int64_t amount, int64_t spent, int64_t rate, int64_t seconds_left)
{
	PlanBudget budget = {
		.hard = true, .amount = amount, .spent = spent, .rate = rate, .seconds_left = seconds_left
	};

	return budget;
}

void
test_budget(void)
{
	PlanBudget budget = budget_of(3000000, 0, 0, 3600);
	uint64_t seed = 7;
	bool holds = true;

	ok(plan_budget_room(&budget, 1000000) == 3, "three pods at a third of the budget");
	ok(plan_budget_room(&budget, 1000001) == 2, "two that cost a little more");
	ok(plan_budget_room(&budget, 0) == 0 && plan_budget_room(&budget, -1) == 0,
	   "none at a price that is not known");
	budget = budget_of(3000000, 1000000, 1000000, 3600);
	ok(plan_budget_left(&budget) == 1000000 && plan_budget_room(&budget, 1000000) == 1,
	   "what is spent and what is committed count");
	budget = budget_of(3000000, 2500000, 1000000, 3600);
	ok(plan_budget_left(&budget) == -500000 && plan_budget_room(&budget, 1) == 0,
	   "an overdrawn budget allows none");
	budget = budget_of(24000000, 0, 0, 86400);
	ok(plan_budget_room(&budget, 500000) == 2, "a day's budget counts a pod until midnight");
	budget = budget_of(24000000, 0, 0, 43200);
	ok(plan_budget_room(&budget, 500000) == 4, "and half as much at noon");
	budget = budget_of(10, 0, 1, 1);
	ok(plan_budget_committed(&budget) == 1, "a fraction is rounded up");
	budget = budget_of(10, 0, 0, 0);
	ok(plan_budget_room(&budget, 1) == 10, "the last moment of a window costs something");
	budget = budget_of(INT64_MAX, 0, INT64_MAX, 2678400);
	ok(plan_budget_committed(&budget) == INT64_MAX && plan_budget_room(&budget, 1) == 0,
	   "what does not fit is too much");
	budget = budget_of(INT64_MAX, 0, 0, 1);
	ok(plan_budget_room(&budget, 1) == INT_MAX, "room is at most what an int holds");

	for (int i = 0; i < 20000 && holds; i++)
	{
		int64_t price = draw(&seed, 1, 5000000);
		int room;

		budget = budget_of(draw(&seed, 0, 100000000), draw(&seed, 0, 50000000),
						   draw(&seed, 0, 20000000), draw(&seed, 1, 2678400));
		room = plan_budget_room(&budget, price);
		for (int pod = 0; pod < room && pod < 100; pod++)
			budget.rate += price;
		holds = room == 0 || room > 100 || plan_budget_left(&budget) >= 0;
	}
	ok(holds, "as many pods as there is room for never break a budget");
}
