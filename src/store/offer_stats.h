/*
 * store/offer_stats.h
 *	  What pods taught: about their offers, and about what a pool may create.
 */
#ifndef GPU_ORCH_STORE_OFFER_STATS_H
#define GPU_ORCH_STORE_OFFER_STATS_H

#include "decide/scale.h"
#include "store/offer.h"

extern void store_offer_learn(TimestampTz now);
extern void store_offer_watch(TimestampTz now);
extern bool store_offer_all_refuse(int32 pool);
extern void store_offer_expect(int64 worker, const char *image, const OfferRow *offer);
extern void store_offer_pool_altered(int32 pool, const char *name, TimestampTz now);

#endif
