/*
 * store/passed.h
 *	  Workers that have never claimed although tasks wait that they could claim.
 */
#ifndef GPU_ORCH_STORE_PASSED_H
#define GPU_ORCH_STORE_PASSED_H

#include "db/spi_util.h"

extern void store_passed_watch(TimestampTz now);

#endif
