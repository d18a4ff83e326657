/*
 * store/breaker.h
 *	  The breakers of images.
 */
#ifndef GPU_ORCH_STORE_BREAKER_H
#define GPU_ORCH_STORE_BREAKER_H

#include "decide/offer.h"
#include "db/spi_util.h"

extern bool store_breaker_is_free(const char *image);
extern int store_breaker_room(const char *image, TimestampTz now);
extern bool store_breaker_admits(const char *image, bool *canary, TimestampTz now);
extern void store_breaker_send_canary(const char *image, int64 worker);
extern bool store_breaker_failed(const char *image, const char *cause, int64 worker,
								 int min_workers, int64 lived, TimestampTz now);
extern void store_breaker_worked(const char *image, bool claimed);
extern void store_breaker_retry(int32 pool, TimestampTz now);
extern void store_breaker_watch(TimestampTz now);

#endif
