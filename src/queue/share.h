/*
 * queue/share.h
 *	  How many places for shapes each tenant has, may have, and waits for.
 */
#ifndef GPU_ORCH_QUEUE_SHARE_H
#define GPU_ORCH_QUEUE_SHARE_H

#include "datatype/timestamp.h"

extern Size queue_share_size(void);
extern void queue_share_startup(void);

extern int queue_share_of_locked(int left);
extern bool queue_share_allows_locked(Oid database, int32 tenant, int share, int used);
extern void queue_share_charge_locked(Oid database, int32 tenant, int change);
extern void queue_share_refuse_locked(Oid database, int32 tenant);
extern bool queue_share_refused_locked(Oid database, TimestampTz since, int *at, int32 *tenant);
extern void queue_share_content_locked(Oid database, int32 tenant);

#endif
