/*
 * store_wanted.h
 *	  Whether a create that was announced is still to be sent.
 */
#ifndef GPU_ORCH_STORE_WANTED_H
#define GPU_ORCH_STORE_WANTED_H

#include "store_op.h"
#include "store_pool.h"

extern const char *store_wanted_problem(const CloudOpRow *op, const PoolRow *pool, TimestampTz now);

#endif
