/*
 * store/budget.h
 *	  Budgets of pools and of the installation.
 */
#ifndef GPU_ORCH_STORE_BUDGET_H
#define GPU_ORCH_STORE_BUDGET_H

#include "decide/budget.h"
#include "db/spi_util.h"

typedef struct BudgetRow
{
	int32 pool;	 /* 0: of the installation */
	char *name;	 /* as in "the day budget of the pool" */
	char *owner; /* "pool NAME", or "the installation" */
	PlanBudget plan;
} BudgetRow;

extern int store_budget_list(BudgetRow **budgets);
extern void store_budget_set(int32 pool, const char *per, bool hard, Datum amount, TimestampTz now);
extern const char *store_budget_broken(int32 pool);
extern bool store_budget_remove(int32 pool, const char *per, bool hard);

#endif
