/*
 * decide/budget.c
 *	  What a budget still allows.
 *
 * Pure: no PostgreSQL header, no clock, no memory of its own. A pod is held against a
 * budget as if it ran until the end of the window: one that ends before leaves room for
 * another, one that does not breaks nothing. All rounding is to the budget's disadvantage.
 */
#include <limits.h>

#include "decide/budget.h"

#define SECONDS_PER_HOUR 3600

/* What a price comes to in so many seconds, rounded up; INT64_MAX if that is too much to tell. */
static int64_t
cost_of(int64_t price, int64_t seconds)
{
	__int128 cost = ((__int128) price * seconds + SECONDS_PER_HOUR - 1) / SECONDS_PER_HOUR;

	return cost > INT64_MAX ? INT64_MAX : (int64_t) cost;
}

/* What is committed: all that bills now, until the end of the window. */
int64_t
plan_budget_committed(const PlanBudget *budget)
{
	return cost_of(budget->rate, budget->seconds_left);
}

/* What is neither spent nor committed; negative if the budget is overdrawn. */
int64_t
plan_budget_left(const PlanBudget *budget)
{
	__int128 left = (__int128) budget->amount - budget->spent - plan_budget_committed(budget);

	return left < INT64_MIN ? INT64_MIN : (int64_t) left;
}

/* How many more pods of a price the budget allows; none at a price that is not known. */
int
plan_budget_room(const PlanBudget *budget, int64_t price)
{
	int64_t left = plan_budget_left(budget);
	int64_t room;

	if (left <= 0 || price <= 0)
		return 0;
	room = left / cost_of(price, budget->seconds_left > 0 ? budget->seconds_left : 1);
	return room > INT_MAX ? INT_MAX : (int) room;
}
