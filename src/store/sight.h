/*
 * store/sight.h
 *	  What looks showed of the pods of open ops.
 */
#ifndef GPU_ORCH_STORE_SIGHT_H
#define GPU_ORCH_STORE_SIGHT_H

#include "db/spi_util.h"

extern void store_sight_absent(int64 op, TimestampTz now);
extern void store_sight_shown(int64 op, bool alone);
extern void store_sight_denied(int64 op, TimestampTz at);

#endif
