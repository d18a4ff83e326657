/*
 * clock.h
 *	  The time that every decision is taken at.
 */
#ifndef GPU_ORCH_CLOCK_H
#define GPU_ORCH_CLOCK_H

#include "datatype/timestamp.h"

extern TimestampTz clock_now(void);

#endif
