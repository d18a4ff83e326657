/*
 * base/heard.h
 *	  When workers were heard of whose rows somebody has locked.
 */
#ifndef GPU_ORCH_HEARD_H
#define GPU_ORCH_HEARD_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

extern Size heard_size(void);
extern void heard_startup(LWLock *lock);
extern void heard_note(int64 worker, bool locked, TimestampTz now);
extern TimestampTz heard_at(int64 worker);

#endif
