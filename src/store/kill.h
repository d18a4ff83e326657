/*
 * store/kill.h
 *	  The end of the whole fleet.
 */
#ifndef GPU_ORCH_STORE_KILL_H
#define GPU_ORCH_STORE_KILL_H

#include "store/worker.h"

extern bool store_kill_concerns(const WorkerInfo *worker);
extern int64 store_kill_fleet(TimestampTz now);

#endif
