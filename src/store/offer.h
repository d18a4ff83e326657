/*
 * store/offer.h
 *	  What the provider offers to a pool.
 */
#ifndef GPU_ORCH_STORE_OFFER_H
#define GPU_ORCH_STORE_OFFER_H

#include "db/spi_util.h"

typedef struct OfferRow
{
	int64 id;
	int32 pool;
	int32 ordinal;
	char *gpu_type;
	char *data_center;	/* NULL: any */
	int64 price_micros; /* of a whole pod per hour; negative: not known */
	TimestampTz backoff_until;
	int32 refusals;
	int32 gpu_count; /* of a pod of it */
	char *cloud_type;
} OfferRow;

extern void store_offer_make(int32 pool);
extern int store_offer_list(int32 pool, OfferRow **offers);
extern int64 store_offer_ceiling(int32 pool);
extern int64 store_offer_count_unpriced(void);
extern int32 store_offer_refusals(int64 offer);
extern void store_offer_refused(int64 offer, TimestampTz backoff_until, TimestampTz now);
extern void store_offer_accepted(int64 offer, int64 price_micros, TimestampTz now);
extern int64 store_offer_price_by_type(const char *gpu_type, const char *cloud_type,
									   int64 price_micros, TimestampTz now);

#endif
