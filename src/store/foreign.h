/*
 * store/foreign.h
 *	  The account's pods that are not ours.
 */
#ifndef GPU_ORCH_STORE_FOREIGN_H
#define GPU_ORCH_STORE_FOREIGN_H

#include "db/spi_util.h"

/* Of more pods the others are counted, and not kept. */
#define FOREIGN_KEPT 1000

/* What is shown of them, by column; what is not known is "", or no price above 0. */
typedef struct ForeignPods
{
	int n;
	char *ids[FOREIGN_KEPT];
	char *names[FOREIGN_KEPT];
	char *gpu_types[FOREIGN_KEPT];
	char *statuses[FOREIGN_KEPT];
	int64 prices[FOREIGN_KEPT];
} ForeignPods;

extern void store_foreign_listed(const ForeignPods *pods, TimestampTz now);

#endif
