/*
 * store/usage.h
 *	  What is counted of the queue and of the history, so that views need not.
 */
#ifndef GPU_ORCH_STORE_USAGE_H
#define GPU_ORCH_STORE_USAGE_H

#include "db/spi_util.h"

extern void store_queue_depth_count(TimestampTz now);
extern int64 store_usage_count(TimestampTz now);
extern void store_spend_sum_day(TimestampTz now);

#endif
