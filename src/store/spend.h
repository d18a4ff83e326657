/*
 * store/spend.h
 *	  What the pods cost.
 */
#ifndef GPU_ORCH_STORE_SPEND_H
#define GPU_ORCH_STORE_SPEND_H

#include "db/spi_util.h"

/* Where a price is from; the later, the better it is. */
typedef enum SpendPrice
{
	PRICE_ASSUMED, /* not known: what it may be at most */
	PRICE_CATALOG,
	PRICE_PROVIDER /* said of this very pod */
} SpendPrice;

extern void store_spend_open(int64 worker, int32 pool, int64 price_micros, SpendPrice price_from,
							 TimestampTz from);
extern void store_spend_open_pod(const char *pod_id, int32 pool, int64 price_micros,
								 SpendPrice price_from, TimestampTz from);
extern void store_spend_pod(int64 worker, const char *pod_id, int64 price_micros, TimestampTz now);
extern bool store_spend_any_unsaid(void);
extern void store_spend_since(int64 worker, TimestampTz from, TimestampTz now);
extern void store_spend_close(int64 worker, TimestampTz at);
extern void store_spend_close_pod(const char *pod_id, TimestampTz at);
extern void store_spend_reopen(int64 worker);
extern void store_spend_shift(int64 step, TimestampTz since);
extern void store_spend_watch(TimestampTz now);

#endif
