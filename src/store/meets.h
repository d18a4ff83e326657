/*
 * store/meets.h
 *	  Which capability sets meet which shapes, remembered by this process.
 */
#ifndef GPU_ORCH_STORE_MEETS_H
#define GPU_ORCH_STORE_MEETS_H

#include "utils/jsonb.h"

/* The capabilities of a worker, or of a pool that declares them. */
typedef struct CapabilitySet
{
	int64 digest;
	int64 worker;		 /* whose they are, to be read once they are wanted; 0: nobody's */
	Jsonb *capabilities; /* NULL: not read yet, or with worker 0: they meet every shape */
} CapabilitySet;

extern bool store_meets(CapabilitySet *set, int64 shape);

#endif
