/*
 * store/dependency.h
 *	  Tasks that depend on others.
 */
#ifndef GPU_ORCH_STORE_DEPENDENCY_H
#define GPU_ORCH_STORE_DEPENDENCY_H

#include "db/spi_util.h"

/* How the tasks stand that one depends on. */
typedef enum ParentsVerdict
{
	PARENTS_SUCCEEDED, /* or there is none */
	PARENTS_OPEN,	   /* one of them has not ended */
	PARENTS_FAILED,	   /* one of them has ended otherwise */
	PARENTS_GONE	   /* of one of them nothing is known any more */
} ParentsVerdict;

extern void store_dependency_add(int64 task_id, const int64 *parents, int n_parents);
extern void store_dependency_keep_parents(int64 task_id);
extern bool store_dependency_blocks(int64 task_id);
extern ParentsVerdict store_dependency_judge(int64 task_id, int64 *parent);
extern void store_dependency_check(int64 task_id);
extern bool store_dependency_ended(int64 task_id);
extern int64 store_dependency_admit(TimestampTz now, bool *more);
extern int64 store_dependency_repair(TimestampTz now);

#endif
