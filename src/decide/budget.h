/*
 * decide/budget.h
 *	  What a budget still allows. Pure.
 *
 * Money is in millionths of a dollar, prices and rates are per hour.
 */
#ifndef GPU_ORCH_PLAN_BUDGET_H
#define GPU_ORCH_PLAN_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct PlanBudget
{
	bool hard;			  /* a create never breaks it; a soft one is told of */
	int64_t amount;		  /* for the whole window */
	int64_t spent;		  /* in the window until now */
	int64_t rate;		  /* of all that bills, may bill, or is announced */
	int64_t seconds_left; /* of the window, rounded up */
} PlanBudget;

extern int64_t plan_budget_committed(const PlanBudget *budget);
extern int64_t plan_budget_left(const PlanBudget *budget);
extern int plan_budget_room(const PlanBudget *budget, int64_t price);

#endif
