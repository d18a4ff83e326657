/*
 * store/attempt.h
 *	  Ended attempts.
 */
#ifndef GPU_ORCH_STORE_ATTEMPT_H
#define GPU_ORCH_STORE_ATTEMPT_H

#include "store/lease.h"

extern void store_attempt_record(const TaskSlot *slot, int64 worker, const pg_uuid_t *lease,
								 TimestampTz claimed_at, const char *outcome, const char *failure,
								 const char *final_state, const char *error, Jsonb *result,
								 TimestampTz now);
extern bool store_attempt_was_ended(int64 worker, int64 task_id, const pg_uuid_t *lease,
									const LeaseEnd *end);
extern void store_attempt_reopen(int64 task_id, int32 attempt);
extern bool store_attempt_last(int64 task_id, int32 *attempt, bool *final, bool *succeeded);
extern bool store_attempt_exists(int64 task_id, int32 attempt);

#endif
