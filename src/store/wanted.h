/*
 * store/wanted.h
 *	  Whether a create that was announced is still to be sent.
 */
#ifndef GPU_ORCH_STORE_WANTED_H
#define GPU_ORCH_STORE_WANTED_H

#include "store/op.h"
#include "store/pool.h"

extern const char *store_wanted_problem(const CloudOpRow *op, const PoolRow *pool, TimestampTz now);

#endif
