/*
 * base/wake.h
 *	  Waking the leader when a transaction commits.
 */
#ifndef GPU_ORCH_WAKE_H
#define GPU_ORCH_WAKE_H

#include "base/shmem.h"

extern void wake_init(void);
extern void wake_at_commit(uint32 flags);
extern uint32 wake_pending(void);
extern uint32 wake_take(uint32 flags);

#endif
