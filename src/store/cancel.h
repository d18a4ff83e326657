/*
 * store/cancel.h
 *	  Requests to cancel running tasks.
 */
#ifndef GPU_ORCH_STORE_CANCEL_H
#define GPU_ORCH_STORE_CANCEL_H

#include "db/spi_util.h"

extern bool store_cancel_request(int64 task_id, TimestampTz now);
extern bool store_cancel_requested(int64 task_id);
extern void store_cancel_forget(int64 task_id);
extern Datum store_cancel_of_worker(int64 worker);
extern int64 store_cancel_admit(TimestampTz now, bool *more);

#endif
