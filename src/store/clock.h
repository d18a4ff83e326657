/*
 * store/clock.h
 *	  What a clock that was set means for open rows.
 */
#ifndef GPU_ORCH_STORE_CLOCK_H
#define GPU_ORCH_STORE_CLOCK_H

#include "db/spi_util.h"

extern void store_clock_shift(int64 step, TimestampTz since);

#endif
