/*
 * store/retention.h
 *	  What is removed when its time is over.
 */
#ifndef GPU_ORCH_STORE_RETENTION_H
#define GPU_ORCH_STORE_RETENTION_H

#include "db/spi_util.h"

/* How many rules there are, numbered from 0. */
#define RETENTION_RULES 13

/* Up to where a rule has looked; everything before that went, or is kept for a reason. */
typedef struct RetentionPlace
{
	TimestampTz at;
	int64 id;
} RetentionPlace;

/* Where a rule begins, and no place at all. */
#define RETENTION_BEGIN ((RetentionPlace){ DT_NOBEGIN, PG_INT64_MIN })
#define RETENTION_NOWHERE ((RetentionPlace){ DT_NOEND, PG_INT64_MAX })

/* The most relations of which rows are removed. */
#define RETENTION_RELATIONS 16

/* How many rows of each relation went, or would go. Of one rule, its own relation is the first. */
typedef struct RetentionSum
{
	int n;
	char relation[RETENTION_RELATIONS][NAMEDATALEN];
	int64 rows[RETENTION_RELATIONS];
} RetentionSum;

extern void store_retention_add(RetentionSum *sum, const char *relation, int64 rows);
extern void store_retention_lock(int rule);
extern bool store_retention_step(int rule, RetentionPlace *place, RetentionPlace *young,
								 RetentionSum *sum, TimestampTz now);
extern void store_retention_count(int rule, RetentionSum *sum, TimestampTz now);
extern void store_retention_checkpoint(int rule, int64 rows, TimestampTz now);
extern bool store_retention_forget(int64 task_id, TimestampTz now);

#endif
