/*
 * base/clock.h
 *	  The time that every decision is taken at.
 */
#ifndef GPU_ORCH_CLOCK_H
#define GPU_ORCH_CLOCK_H

#include "datatype/timestamp.h"

extern TimestampTz clock_now(void);
extern int64 clock_step(TimestampTz *since);

#endif
