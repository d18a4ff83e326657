/*
 * store/event.h
 *	  What changed, and what was decided.
 */
#ifndef GPU_ORCH_STORE_EVENT_H
#define GPU_ORCH_STORE_EVENT_H

#include "decide/scale.h"
#include "db/spi_util.h"

extern void store_event(const char *kind, const char *subject, Jsonb *detail, TimestampTz now);
extern bool store_event_within(int64 ms, const char *kind, const char *subject, Jsonb *detail,
							   TimestampTz now);
extern void store_event_move(const char *subject, int64 worker, const WorkerRule *rule,
							 const char *detail, TimestampTz now);
extern void store_event_added(const char *kind, const char *subject, int64 worker,
							  WorkerState state, Jsonb *detail, TimestampTz now);
extern int64 store_decision(int32 pool, const char *policy, const PlanResult *plan, int ended,
							TimestampTz now);
extern Jsonb *store_detail(const char *key, const char *value);

#endif
