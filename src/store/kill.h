/*
 * store/kill.h
 *	  The end of the whole fleet.
 */
#ifndef GPU_ORCH_STORE_KILL_H
#define GPU_ORCH_STORE_KILL_H

#include "db/spi_util.h"

extern int64 store_kill_fleet(TimestampTz now);

#endif
