/*
 * store_sight.h
 *	  What looks showed of the pods of open ops.
 */
#ifndef GPU_ORCH_STORE_SIGHT_H
#define GPU_ORCH_STORE_SIGHT_H

#include "spi_util.h"

extern void store_sight_listed(int64 op, TimestampTz after_answer);
extern void store_sight_shown(int64 op, TimestampTz at);
extern void store_sight_denied(int64 op, TimestampTz at);

#endif
